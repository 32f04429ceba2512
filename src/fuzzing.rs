//! The bodies of the fuzz targets.

mod tls;
pub mod tls_handshake;
pub mod tls_records;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn try_random(seed: u64, count: usize, body: fn(&[u8])) {
        let mut random = Random::new(seed);
        for _ in 0..count {
            let length = random.below(80);
            let bytes: Vec<u8> =
                (0..length).map(|_| random.next() as u8 % if random.below(2) == 0 { 16 } else { 255 }).collect();
            body(&bytes);
        }
    }

    #[test]
    fn tls_handshake() {
        try_random(1, 3000, tls_handshake::body);
    }

    #[test]
    fn tls_records() {
        try_random(1, 3000, tls_records::body);
    }
}
