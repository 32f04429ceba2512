//! Until when a certificate is valid. Nothing else of it is looked at.

use crate::clock;
use rustls::pki_types::CertificateDer;
use std::fmt;
use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// People are warned so long before.
const WARNING: Duration = Duration::days(30);

/// The moment after which a certificate is not valid any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(OffsetDateTime);

impl Expiry {
    /// `None`: this is no certificate that anybody could read.
    pub fn of(certificate: &CertificateDer) -> Option<Self> {
        not_after(certificate).map(Self)
    }

    /// Seconds since the epoch; 0 for what lies before it.
    pub fn timestamp(&self) -> u64 {
        self.0.unix_timestamp().try_into().unwrap_or(0)
    }

    /// Whole days from now; negative once it is over.
    pub fn days_left(&self) -> i64 {
        (self.0 - clock::utc()).whole_days()
    }

    /// What to say of a certificate that ends within 30 days, or has ended.
    pub fn warning(&self) -> Option<String> {
        let left = self.0 - clock::utc();
        if left.is_negative() {
            Some(format!("has been invalid since {self}: agents and users may refuse it"))
        } else {
            (left < WARNING).then(|| format!("is valid until {self} only: renew it, then reload the daemon"))
        }
    }
}

/// The date, in UTC.
impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.date().fmt(f)
    }
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Walks a Certificate up to `notAfter` (RFC 5280, section 4.1).
fn not_after(certificate: &[u8]) -> Option<OffsetDateTime> {
    let (_, certificate) = elements(certificate).next()?;
    let (_, to_be_signed) = elements(certificate).next()?;
    // Behind version and serial number, which are none: algorithm, issuer, validity.
    let (_, validity) = elements(to_be_signed).filter(|(tag, _)| *tag == SEQUENCE).nth(2)?;
    match elements(validity).nth(1)? {
        // Two digits of the year: 1950 to 2049.
        (UTC_TIME, text) => moment(&[if *text.first()? < b'5' { b"20" } else { b"19" }, text].concat()),
        (GENERALIZED_TIME, text) => moment(text),
        _ => None,
    }
}

/// Tag and content of each element, up to the first that is none. No certificate needs a length of more than three
/// bytes, or a tag of more than one.
fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [tag, length, rest @ ..] = der else { return None };
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        der = rest;
        Some((*tag, content))
    })
}

/// `YYYYMMDDHHMMSSZ`: certificates have no other form of it.
fn moment(text: &[u8]) -> Option<OffsetDateTime> {
    let digits =
        text.strip_suffix(b"Z").filter(|digits| digits.len() == 14 && digits.iter().all(u8::is_ascii_digit))?;
    let number =
        |from: usize, to: usize| digits[from..to].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let [month, day, hour, minute, second] = [4, 6, 8, 10, 12].map(|at| number(at, at + 2) as u8);
    let date = Date::from_calendar_date(number(0, 4).into(), Month::try_from(month).ok()?, day).ok()?;
    Some(PrimitiveDateTime::new(date, Time::from_hms(hour, minute, second).ok()?).assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn until(year: i32, month: u8, day: u8) -> Expiry {
        expiring(date_time_ymd(year, month, day))
    }

    fn expiring(moment: OffsetDateTime) -> Expiry {
        let mut parameters = CertificateParams::new(["relay.example.org".to_owned()]).unwrap();
        parameters.not_after = moment;
        let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Expiry::of(certificate.der()).unwrap()
    }

    #[test]
    fn dates_of_both_encodings_are_read() {
        assert_eq!(until(2049, 12, 31).to_string(), "2049-12-31");
        assert_eq!(until(2050, 1, 1).to_string(), "2050-01-01");
        assert_eq!([until(2026, 1, 1), until(1960, 1, 1)].map(|expiry| expiry.timestamp()), [1_767_225_600, 0]);
    }

    #[test]
    fn the_last_thirty_days_and_the_time_after_are_worth_a_warning() {
        let in_days = |days| expiring(clock::utc() + Duration::days(days) + Duration::minutes(1));
        assert_eq!(in_days(31).warning(), None);
        assert!(in_days(29).warning().unwrap().contains("renew"));
        assert_eq!(in_days(29).days_left(), 29);
        assert!(until(2001, 1, 1).warning().unwrap().contains("invalid since 2001-01-01"));
    }

    #[test]
    fn what_is_no_certificate_has_no_date() {
        let whole = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        for end in 0..whole.der().len() {
            assert_eq!(Expiry::of(&CertificateDer::from(&whole.der()[..end])), None);
        }
    }
    /// A length that reaches beyond all memory, at each place where there is a length; and times out of range.
    #[test]
    fn what_is_broken_has_no_date_either() {
        let whole = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        for at in 0..whole.der().len() - 10 {
            let mut broken = whole.der().to_vec();
            broken.splice(at..at + 2, [0x30, 0x88].into_iter().chain([0xff; 8]));
            let _ = Expiry::of(&CertificateDer::from(broken));
        }
        for text in
            ["99991231235959-0100", "99991231235960Z", "20251301000000Z", "2025010100000Z", "2025010100000 Z", ""]
        {
            assert_eq!(moment(text.as_bytes()), None, "{text}");
        }
        assert_eq!(moment(b"19700101000001Z").unwrap().unix_timestamp(), 1);
    }
}
