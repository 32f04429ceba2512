//! The server name that a TLS client asks for (SNI).
//!
//! rustls tells it to who chooses the certificate, in the middle of the handshake; its unbuffered connection tells it to
//! nobody. So while a handshake goes on, the place for its name is the thread's.

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::cell::RefCell;
use std::mem::take;
use std::sync::Arc;

/// A place for the name.
#[derive(Default)]
pub(super) enum ServerName {
    /// Nobody wants to know it, or not any more.
    #[default]
    Unwanted,
    /// It has not been said, or the client asks for none.
    Wanted,
    Known(Box<str>),
}

thread_local! {
    static OF_HANDSHAKE: RefCell<ServerName> = RefCell::default();
}

impl ServerName {
    /// Runs what may be a part of a handshake.
    pub(super) fn listen<T>(&mut self, handshake: impl FnOnce() -> T) -> T {
        OF_HANDSHAKE.set(take(self));
        let done = handshake();
        *self = OF_HANDSHAKE.take();
        done
    }

    pub(super) fn get(&self) -> Option<&str> {
        if let Self::Known(name) = self { Some(name) } else { None }
    }
}

/// One certificate, whatever the client asks for.
#[derive(Debug)]
pub(super) struct OneCertificate(pub(super) Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        OF_HANDSHAKE.with_borrow_mut(|place| {
            if let (Some(name), ServerName::Wanted) = (hello.server_name(), &*place) {
                *place = ServerName::Known(name.into());
            }
        });
        Some(Arc::clone(&self.0))
    }
}
