use super::*;
use crate::testing::Random;
use std::collections::HashSet;

fn set(ranges: &[&str]) -> PortSet {
    let ranges: Vec<PortRange> = ranges.iter().map(|text| text.parse().unwrap()).collect();
    PortSet::usable(&ranges, &[])
}

#[test]
fn a_range_is_read_or_refused_with_what_was_wrong() {
    assert_eq!("7000".parse(), Ok(PortRange(7000..=7000)));
    assert_eq!("1-65535".parse(), Ok(PortRange(1..=65535)));
    for (text, complaint) in [
        ("", "no port"),
        ("-", "no port"),
        ("7000-", "no port"),
        ("a-b", "no port"),
        ("+7000", "no port"),
        ("1-2-3", "no port"),
        ("0", "out of range"),
        ("0-5", "out of range"),
        ("65536", "out of range"),
        ("99999999999999999999", "out of range"),
        ("7002-7000", "reversed: write \"7000-7002\""),
    ] {
        let error = text.parse::<PortRange>().unwrap_err();
        assert!(error.contains(complaint), "{text:?}: {error}");
    }
}

#[test]
fn usable_is_ports_minus_exclude() {
    let usable = PortSet::usable(&["6000-6001", "7000-7002"].map(|t| t.parse().unwrap()), &["7001".parse().unwrap()]);
    assert_eq!(usable.iter().collect::<Vec<_>>(), [6000, 6001, 7000, 7002]);
    assert_eq!(usable.len(), 4);
}

#[test]
fn ports_come_in_order_and_a_port_just_given_up_comes_last() {
    let mut ports = Ports::new(set(&["10-14"]), []);
    assert_eq!([ports.take(), ports.take(), ports.take()], [Some(10), Some(11), Some(12)]);
    ports.give_back(12);
    ports.give_back(10);
    assert_eq!([ports.take(), ports.take(), ports.take()], [Some(13), Some(14), Some(12)]);
    assert_eq!([ports.take(), ports.take()], [Some(10), None]);
}

#[test]
fn stored_ports_are_taken_even_outside_the_settings() {
    let mut ports = Ports::new(set(&["10-12"]), [11, 99]);
    assert_eq!(ports.available(), 2);
    ports.give_back(99);
    assert_eq!(ports.available(), 2, "a port outside the settings became usable");
    ports.give_back(11);
    ports.give_back(11);
    assert_eq!(ports.available(), 3, "a port was given back twice");
}

#[test]
fn changed_settings_keep_what_is_taken() {
    let mut ports = Ports::new(set(&["10-13"]), []);
    assert_eq!(ports.take(), Some(10));
    ports.set_usable(set(&["10", "12-14"]));
    assert_eq!([ports.take(), ports.take(), ports.take(), ports.take()], [Some(12), Some(13), Some(14), None]);
    ports.give_back(10);
    assert_eq!(ports.take(), Some(10));
    ports.set_usable(set(&["12"]));
    ports.give_back(10);
    assert_eq!(ports.available(), 0);
    ports.set_usable(set(&["10"]));
    assert_eq!(ports.take(), Some(10));
}

/// 10,000 random adds and removes while other programs take ports and let them go.
#[test]
fn nothing_leaks_and_nobody_gets_a_port_twice() {
    let usable = set(&["1000-1063", "2000", "3000-3009"]);
    let total = usable.len();
    for seed in 1..=4 {
        let mut random = Random::new(seed);
        let mut ports = Ports::new(usable.clone(), []);
        let mut foreign: HashSet<u16> = HashSet::new();
        let mut mine: Vec<u16> = Vec::new();
        for _ in 0..10_000 {
            match random.below(4) {
                0 => drop(foreign.insert(usable.iter().nth(random.below(total)).unwrap())),
                1 => foreign.retain(|_| random.below(3) > 0),
                2 if !mine.is_empty() => ports.give_back(mine.swap_remove(random.below(mine.len()))),
                _ => {
                    // As the control thread does it: what another program holds is skipped, then given back.
                    let mut skipped = Vec::new();
                    while let Some(port) = ports.take() {
                        assert!(!mine.contains(&port), "port {port} was handed out twice");
                        if foreign.contains(&port) {
                            skipped.push(port);
                        } else {
                            mine.push(port);
                            break;
                        }
                    }
                    skipped.into_iter().for_each(|port| ports.give_back(port));
                }
            }
            assert_eq!(ports.available() + mine.len(), total, "a port leaked");
        }
        mine.drain(..).for_each(|port| ports.give_back(port));
        let all: HashSet<u16> = std::iter::from_fn(|| ports.take()).collect();
        assert_eq!(all.len(), total);
    }
}

#[test]
fn usable_ports_are_told_as_ranges() {
    assert_eq!(set(&["10-14", "20", "15"]).ranges(8), "10-15, 20");
    assert_eq!(set(&["10-14", "20", "65535"]).ranges(2), "10-14, 20, ...");
}

#[test]
fn a_claimed_port_is_handed_out_to_nobody_else() {
    let mut ports = Ports::new(set(&["10-12"]), []);
    assert!(ports.is_free(11) && !ports.is_free(13));
    ports.claim(11);
    assert!(!ports.is_free(11) && ports.is_usable(11));
    assert_eq!([ports.take(), ports.take(), ports.take()], [Some(10), Some(12), None]);
    ports.give_back(11);
    assert_eq!(ports.take(), Some(11));
}
