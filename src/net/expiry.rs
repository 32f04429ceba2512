//! Until when a certificate is valid. Nothing else of it is looked at.

use rustls::pki_types::CertificateDer;
use std::fmt;
use time::{Duration, OffsetDateTime};
use yasna::{ASN1Result, BERReader, Tag};

/// People are warned so long before.
const WARNING: Duration = Duration::days(30);

/// The moment after which a certificate is not valid any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(OffsetDateTime);

impl Expiry {
    /// `None`: this is no certificate that anybody could read.
    pub fn of(certificate: &CertificateDer) -> Option<Self> {
        yasna::parse_der(certificate, not_after).ok().map(Self)
    }

    /// Seconds since the epoch; 0 for what lies before it.
    pub fn timestamp(&self) -> u64 {
        self.0.unix_timestamp().try_into().unwrap_or(0)
    }

    /// Whole days from now; negative once it is over.
    pub fn days_left(&self) -> i64 {
        (self.0 - OffsetDateTime::now_utc()).whole_days()
    }

    /// What to say of a certificate that ends within 30 days, or has ended.
    pub fn warning(&self) -> Option<String> {
        let left = self.0 - OffsetDateTime::now_utc();
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

/// Walks a Certificate up to `notAfter` (RFC 5280, section 4.1).
fn not_after(certificate: BERReader) -> ASN1Result<OffsetDateTime> {
    certificate.read_sequence(|certificate| {
        let moment = certificate.next().read_sequence(|to_be_signed| {
            to_be_signed.read_optional(|version| version.read_tagged(Tag::context(0), |it| it.read_der()))?;
            // Serial number, algorithm, issuer.
            for _ in 0..3 {
                to_be_signed.next().read_der()?;
            }
            let moment = to_be_signed.next().read_sequence(|validity| {
                validity.next().read_der()?;
                validity.next().read_der()
            })?;
            // Subject, key, and what extensions there are.
            while to_be_signed.read_optional(|rest| rest.read_der())?.is_some() {}
            Ok(moment)
        })?;
        // Algorithm and signature.
        certificate.next().read_der()?;
        certificate.next().read_der()?;
        moment_of(&moment)
    })
}

/// UTCTime up to 2049, GeneralizedTime from then on.
fn moment_of(der: &[u8]) -> ASN1Result<OffsetDateTime> {
    yasna::parse_der(der, |time| match time.lookahead_tag()? {
        yasna::tags::TAG_UTCTIME => time.read_utctime().map(|moment| *moment.datetime()),
        _ => time.read_generalized_time().map(|moment| *moment.datetime()),
    })
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
        let in_days = |days| expiring(OffsetDateTime::now_utc() + Duration::days(days) + Duration::minutes(1));
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
}
