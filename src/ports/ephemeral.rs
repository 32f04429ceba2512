//! Ports that the kernel hands out to outgoing connections. Where they overlap with the mappings' ports,
//! a mapping's port may be taken by any program that happens to connect to somewhere.

use super::PortSet;
use std::fs;

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A warning for the log if the kernel may hand out some of the `usable` ports, with what to do about it.
/// `None` also where the kernel does not tell.
pub fn warning(usable: &PortSet) -> Option<String> {
    let range = fs::read_to_string(RANGE).ok()?;
    let reserved = fs::read_to_string(RESERVED).unwrap_or_default();
    overlap(usable, &range, &reserved)
}

fn overlap(usable: &PortSet, range: &str, reserved: &str) -> Option<String> {
    let mut bounds = range.split_whitespace().map(|word| word.parse::<u16>().ok());
    let (from, to) = (bounds.next()??, bounds.next()??);
    let reserved: Vec<_> = reserved.trim().split(',').filter_map(|text| text.parse().ok()).collect();
    let reserved = PortSet::usable(&reserved, &[]);
    let count = (from..=to).filter(|port| usable.contains(*port) && !reserved.contains(*port)).count();
    if count == 0 {
        return None;
    }
    Some(format!(
        "{count} of the ports for mappings are in the kernel's range for outgoing connections ({from}-{to}) and may be \
         taken by any program; reserve them with sysctl net.ipv4.ip_local_reserved_ports, or change ports"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap_of(ports: &str, reserved: &str) -> Option<String> {
        let usable = PortSet::usable(&[ports.parse().unwrap()], &[]);
        overlap(&usable, "32768\t60999\n", reserved)
    }

    #[test]
    fn only_ports_that_are_in_the_range_and_not_reserved_are_warned_of() {
        assert_eq!(overlap_of("30000-32767", "\n"), None);
        assert!(overlap_of("30000-32768", "\n").unwrap().starts_with("1 of the ports"));
        assert!(overlap_of("40000-49999", "\n").unwrap().contains("(32768-60999)"));
        assert_eq!(overlap_of("40000-49999", "40000-44999,45000-49999\n"), None);
        assert!(overlap_of("40000-40009", "40000-40007\n").unwrap().starts_with("2 of the ports"));
    }

    #[test]
    fn a_kernel_that_tells_nothing_is_no_reason_to_warn() {
        let usable = PortSet::usable(&["1-65535".parse().unwrap()], &[]);
        for range in ["", "x y", "1"] {
            assert_eq!(overlap(&usable, range, ""), None);
        }
    }
}
