//! Numbers of things, as messages have them.

use std::fmt::Display;

/// `1 port`, `2 ports`, `0 ports`.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// What a reload says of changed keys that it cannot take over, if there are such.
pub fn need_restart(keys: &[&str]) -> Option<String> {
    let rest = match keys {
        [] => return None,
        [_] => "needs a restart; the old value applies until then",
        _ => "need a restart; the old values apply until then",
    };
    Some(format!("{} {rest}", keys.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(need_restart(&["a"]).unwrap(), "a needs a restart; the old value applies until then");
        assert_eq!(need_restart(&["a", "b"]).unwrap(), "a, b need a restart; the old values apply until then");
        assert_eq!([0, 1, 2].map(|number| counted(number, "port")), ["0 ports", "1 port", "2 ports"]);
    }
}
