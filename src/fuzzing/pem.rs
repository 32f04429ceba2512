//! Certificate and key files: the daemon's own, and the authority for Controllers.

use super::assert_is_readable;
use crate::net::certificate::read_chain;
use crate::net::server_tls::server_tls;
use crate::testing::Folder;
use std::fs;

/// The same bytes are both files: a PEM file may hold a certificate and its key.
pub fn body(bytes: &[u8]) {
    let folder = Folder::new();
    let [certificate, key] = ["server-cert.pem", "server-key.pem"].map(|name| folder.0.join(name));
    for file in [&certificate, &key] {
        fs::write(file, bytes).expect("a file in a temporary folder");
    }
    let chain = read_chain(&certificate);
    match server_tls(&folder.0, Some(&certificate)) {
        Ok(_) => assert!(chain.is_ok_and(|chain| !chain.is_empty())),
        Err(error) => assert_is_readable(&error.to_string()),
    }
}
