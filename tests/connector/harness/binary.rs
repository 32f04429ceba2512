//! The program under test.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::LazyLock;

/// Cargo's own build, or what `IOFOG_CONNECTOR` names: a release, or a script that runs another processor's under an
/// emulator.
static NAME: LazyLock<String> = LazyLock::new(|| {
    let named = env::var("IOFOG_CONNECTOR").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_iofog-connector").to_owned())
});

/// Wherever a program's name is expected.
pub struct Binary;

pub const BINARY: Binary = Binary;

impl AsRef<OsStr> for Binary {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(NAME.as_str())
    }
}

impl AsRef<Path> for Binary {
    fn as_ref(&self) -> &Path {
        Path::new(NAME.as_str())
    }
}
