//! System calls of a process under test that fail, are counted and recorded, and clocks that jump: faults.c, which is
//! loaded before libc there and obeys a page of memory that is shared with it.

use super::{AgentProgram, BINARY, Daemon};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// The fields of the page, in the order of faults.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    ClockOffset,
    Socket,
    Accept,
    Connect,
    Bind,
    Register,
    Descriptor,
    Failed,
    StoreCalls,
    StoreWhich,
    StoreError,
    StoreRecord,
    Uptime,
}

/// What a call of the store may do besides failing.
pub const KILL: i32 = 1000;
pub const VANISH: i32 = 1001;
pub const SHORT: i32 = 1002;

/// What is shared with a process under test.
pub struct Faults {
    folder: TempDir,
    page: File,
    library: &'static Path,
}

impl Faults {
    /// `None`, with a message, where a process cannot be given other system calls.
    pub fn new() -> Option<Self> {
        let Some(library) = library() else {
            eprintln!("skipped: to let system calls fail, a C compiler and a program linked with glibc are needed");
            return None;
        };
        let folder = TempDir::new().expect("a temporary folder");
        let page = File::options().read(true).write(true).create_new(true).open(folder.path().join("page"));
        let page = page.expect("a file");
        page.set_len(4096).expect("a file");
        Some(Self { folder, page, library })
    }

    /// What a process whose store is in `store` needs in its environment.
    fn environment(&self, store: &Path) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        [
            ("LD_PRELOAD", text(self.library)),
            ("FAULTS", text(&self.folder.path().join("page"))),
            ("FAULTS_FOLDER", text(&fs::canonicalize(store).expect("a folder"))),
            ("FAULTS_RECORD", text(&self.folder.path().join("record"))),
        ]
    }

    /// From its start on, the agent obeys.
    pub fn arm_agent(&self, mut agent: AgentProgram) -> AgentProgram {
        for (name, value) in self.environment(self.folder.path()) {
            agent = agent.environment(name, &value);
        }
        agent
    }

    /// From its next start on, the daemon obeys.
    pub fn arm(&self, daemon: &mut Daemon) {
        for (name, value) in self.environment(daemon.folder()) {
            daemon.set_environment(name, value);
        }
    }

    pub fn set(&self, field: Field, value: i64) {
        self.page.write_all_at(&value.to_ne_bytes(), field as u64 * 8).expect("a file");
    }

    pub fn get(&self, field: Field) -> i64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, field as u64 * 8).expect("a file");
        i64::from_ne_bytes(bytes)
    }

    /// From now on the store's calls number `calls` (from 0; 63 stands for all later ones, too) have this error.
    pub fn fail_store(&self, calls: u64, error: i32) {
        self.set(Field::StoreWhich, 0);
        self.set(Field::StoreError, error.into());
        self.set(Field::StoreCalls, 0);
        self.set(Field::StoreWhich, calls as i64);
    }

    /// Ends [`Faults::fail_store`].
    pub fn mend_store(&self) {
        self.set(Field::StoreWhich, 0);
    }

    /// So many seconds from the real time of day.
    pub fn set_clock(&self, ahead: i64) {
        self.set(Field::ClockOffset, ahead * 1_000_000_000);
    }

    /// So much time has passed for it at once; never less than before.
    pub fn pass(&self, time: Duration) {
        self.set(Field::Uptime, time.as_nanos() as i64);
    }

    /// What the store has done while it was recorded.
    pub fn record(&self) -> String {
        fs::read_to_string(self.folder.path().join("record")).unwrap_or_default()
    }
}

/// Compiled once in each run of the tests.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            if !cfg!(all(target_os = "linux", target_env = "gnu")) || !has_dynamic_linker(BINARY.as_ref()) {
                return None;
            }
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let (made, library) = (folder.join(format!("faults-{}", std::process::id())), folder.join("faults.so"));
            fs::create_dir_all(folder).ok()?;
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/connector/harness/faults.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&made).arg(source);
            let compiled = compiler.arg("-ldl").status().is_ok_and(|status| status.success());
            // Another run may be using the one that is there.
            (compiled && fs::rename(&made, &library).is_ok()).then_some(library)
        })
        .as_deref()
}

/// Not so a static program, nor the script that runs one under an emulator. The linker's path is at the beginning.
fn has_dynamic_linker(program: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(program).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.is_ok() && head.windows(9).any(|bytes| bytes == b"/ld-linux")
}
