//! Numbers of things, as messages have them.

use std::fmt::Display;

/// `1 port`, `2 ports`, `0 ports`.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "port")), ["0 ports", "1 port", "2 ports"]);
    }
}
