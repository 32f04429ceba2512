//! A certificate (DER): until when it is valid, and as an authority.

use super::assert_is_readable;
use crate::net::expiry::Expiry;
use crate::net::trust::{self, Trust};
use rustls::pki_types::CertificateDer;

pub fn body(bytes: &[u8]) {
    let certificate = CertificateDer::from(bytes.to_vec());
    if let Some(expiry) = Expiry::of(&certificate) {
        assert_is_readable(&expiry.to_string());
        let warning = expiry.warning();
        assert!(expiry.days_left() > 0 || warning.is_some(), "{expiry} is past");
        assert!(expiry.days_left() < 31 || warning.is_none(), "{expiry} is far");
        let _ = expiry.timestamp();
    }
    for trust in [Trust::Only(certificate.clone()), Trust::Certificates(vec![certificate])] {
        if let Err(error) = trust::client_config(&trust, None) {
            assert_is_readable(&error.to_string());
        }
    }
}
