//! Commands of root's in folders of another user, who has put there what root shall fall for.

use crate::harness::{Mode, PATIENCE, Setup, command, command_within, wait_until};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// Of Debian's nobody, and of most others'.
const NOBODY: u32 = 65534;
/// Has no name, and no process but those of one test.
const NOBODYS_NEIGHBOUR: u32 = 65533;
const SECRET: &str = "r00ts-own-secret";
const EX_NOPERM: i32 = 77;
const EX_CONFIG: i32 = 78;
const EX_CANTCREAT: i32 = 73;
/// How often each race is tried.
const RACES: usize = 200;

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root has something that another user may not read");
    }
    is_root
}

/// A folder of nobody's, in one that all can reach.
fn folder_of_nobody() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a folder of ours");
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    folder
}

/// A file of root's that nobody else may read.
fn secret() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(SECRET.as_bytes()).expect("a file of ours");
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Takes the lock on a pid file, as a daemon does.
fn hold(path: &Path) -> File {
    let file = File::create(path).expect("a file");
    let lock = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_SETLK(&lock)).expect("nobody else has it");
    file
}

/// What nobody has to change in order to have other settings read.
#[derive(Clone, Copy, Debug)]
enum Of {
    Folder,
    FolderAbove,
    File,
    Link,
}

/// Where root finds the settings, in `folder` of nobody's.
fn settings_of_nobody(of: Of, folder: &Path) -> PathBuf {
    let give = |path: &Path| chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    let own = |path: &Path| chown(path, Some(0), Some(0)).expect("root may");
    let settings = folder.join("below/x.conf");
    fs::create_dir(folder.join("below")).expect("a folder of ours");
    fs::write(&settings, "").expect("a file");
    match of {
        Of::Folder => give(&folder.join("below")),
        Of::FolderAbove => return settings,
        Of::File => give(&settings),
        Of::Link => {
            let link = folder.join("link.conf");
            symlink(&settings, &link).expect("a link");
            lchown(&link, Some(NOBODY), Some(NOBODY)).expect("root may");
            own(folder);
            return link;
        }
    }
    own(folder);
    settings
}

#[test]
fn no_token_of_roots_is_sent_to_whom_the_settings_name() {
    if !is_root() {
        return;
    }
    let secret = secret();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (heard, requests) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).unwrap_or(0);
            let _ = heard.send(String::from_utf8_lossy(&piece[..count]).into_owned());
        }
    });
    let token = text(secret.path());
    let content = format!(r#"{{"ports": ["6000-6001"], "dev": true, "apiport": {port}, "apitoken": "{token}"}}"#);
    for of in [Of::Folder, Of::FolderAbove, Of::File, Of::Link] {
        let folder = folder_of_nobody();
        let settings = settings_of_nobody(of, folder.path());
        fs::write(&settings, &content).expect("a file");
        let _lock = hold(&folder.path().join("below/x.conf.pid"));
        for words in
            [&["status"][..], &["status", "--json"], &["mapping", "list"], &["check"], &["stop", "--timeout", "1"]]
        {
            let words = [words, &["--config", text(&settings)]].concat();
            let said = command(&words);
            assert_ne!(said.status, 0, "{of:?}, {words:?}: {said:?}");
            assert!(!format!("{said:?}").contains(SECRET), "{of:?}, {words:?}: {said:?}");
        }
        for request in requests.try_iter() {
            assert!(!request.contains(SECRET), "{of:?}: {request}");
        }
    }
}

struct KilledAtTheEnd(Child);

impl Drop for KilledAtTheEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The user whom a command of root's becomes can stop it, as any process of its own.
#[test]
fn root_does_not_wait_for_ever_for_a_command_that_was_stopped() {
    if !is_root() {
        return;
    }
    let folder = folder_of_nobody();
    chown(folder.path(), Some(NOBODYS_NEIGHBOUR), Some(NOBODYS_NEIGHBOUR)).expect("root may");
    // It accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let settings = folder.path().join("x.conf");
    fs::write(&settings, format!(r#"{{"ports": ["6000-6001"], "dev": true, "apiport": {port}}}"#)).expect("a file");
    let _lock = hold(&folder.path().join("x.conf.pid"));
    let mut stopper = Command::new("sh");
    stopper.args(["-c", "while :; do kill -STOP -1; done"]).uid(NOBODYS_NEIGHBOUR).gid(NOBODYS_NEIGHBOUR);
    let stopper = stopper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _stopper = KilledAtTheEnd(stopper.expect("a shell"));
    let said = command_within(PATIENCE * 3, &["status", "--config", text(&settings)]);
    assert!(said.status == 1 && said.err.contains("is killed"), "{said:?}");
}

/// TLS waits for whole records, and whoever answers may let it wait between any two bytes.
#[test]
fn an_answer_byte_by_byte_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The beginning of a handshake message that is announced to be long.
            let _ = stream.write_all(&[0x16, 3, 3, 0x40, 0]);
            while stream.write_all(&[2]).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let daemon = Setup::new(Mode::Tls).set("apiport", port).prepare();
    let _lock = hold(&daemon.path("connector.conf.pid"));
    let start = Instant::now();
    let said = daemon.command(&["status"]);
    assert!(said.status == 1 && said.err.contains("does not answer"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_fifo_in_the_place_of_any_file_keeps_nobody_waiting() {
    for name in ["connector.conf", "server-cert.pem", "server-key.pem", "configs.json", "token"] {
        let daemon = Setup::new(Mode::Tls).set("apitoken", "token").prepare();
        fs::write(daemon.path("token"), "t0ken").expect("a file");
        let _ = fs::remove_file(daemon.path(name));
        nix::unistd::mkfifo(&daemon.path(name), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for words in [&["check"][..], &["start"]] {
            let said = daemon.command(words);
            assert_eq!(said.status, EX_CONFIG, "{name}, {words:?}: {said:?}");
            assert!(said.err.contains(name) && said.err.contains("regular file"), "{name}, {words:?}: {said:?}");
        }
        let _lock = hold(&daemon.path("connector.conf.pid"));
        for words in [&["status"][..], &["mapping", "list"]] {
            assert_ne!(daemon.command(words).status, 0, "{name}, {words:?}");
        }
    }
    let daemon = Setup::new(Mode::Plain).prepare();
    nix::unistd::mkfifo(&daemon.path("connector.conf.pid"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert_eq!(daemon.command(&["start"]).status, EX_CANTCREAT);
    for words in [&["status"][..], &["status", "--lock"], &["stop"], &["reload"]] {
        assert_eq!(daemon.command(words).status, 1, "{words:?}");
    }
}

#[test]
fn a_folder_of_roots_that_others_may_write_to_is_named() {
    if !is_root() {
        return;
    }
    let daemon = Setup::new(Mode::Plain).prepare();
    fs::set_permissions(daemon.folder(), Permissions::from_mode(0o777)).expect("a folder of ours");
    for words in [&["status"][..], &["stop"], &["reload"], &["check"], &["mapping", "list"]] {
        let said = daemon.command(words);
        assert_eq!(said.status, EX_NOPERM, "{words:?}: {said:?}");
        assert!(said.err.contains(text(daemon.folder())) && said.err.contains("chmod go-w"), "{words:?}: {said:?}");
    }
    let state = daemon.path("state");
    fs::create_dir(&state).expect("a folder");
    fs::set_permissions(&state, Permissions::from_mode(0o775)).expect("a folder of ours");
    for words in [&["cert", "--name", "x"][..], &["cert", "--name", "x", "--state", text(&state)]] {
        let said = daemon.command(words);
        assert_eq!(said.status, EX_NOPERM, "{words:?}: {said:?}");
        assert!(said.err.contains("chmod go-w"), "{words:?}: {said:?}");
        assert!(!daemon.path("server-key.pem").exists() && !state.join("server-key.pem").exists(), "{words:?}");
        // The other one alone.
        fs::set_permissions(daemon.folder(), Permissions::from_mode(0o755)).expect("a folder of ours");
    }
}

/// A pid file of root's is written, and given to the daemon's user: neither may happen to a file with that name only.
#[test]
fn a_pid_file_that_is_another_file_in_truth_stays_as_it_is() {
    if !is_root() {
        return;
    }
    let folder = folder_of_nobody();
    let settings = folder.path().join("x.conf");
    let pid_file = folder.path().join("x.conf.pid");
    // It is refused as soon as it is read: only the pid file is of interest.
    fs::write(&settings, "{}").expect("a file");
    // In the same folder, because there are no links between file systems.
    let precious = folder.path().join("precious");
    fs::write(&precious, SECRET).expect("a file");
    fs::set_permissions(&precious, Permissions::from_mode(0o600)).expect("ours");
    let start = || command(&["start", "--user", "nobody", "--config", text(&settings)]).status;
    let check = |when: &str| {
        let metadata = fs::metadata(&precious).expect("it is there");
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o600), "{when}");
        assert_eq!(fs::read_to_string(&precious).expect("it is there"), SECRET, "{when}");
    };
    for is_hard in [true, false] {
        let made = if is_hard { fs::hard_link(&precious, &pid_file) } else { symlink(&precious, &pid_file) };
        made.expect("a link");
        assert_eq!(start(), EX_CANTCREAT);
        check(if is_hard { "a second name" } else { "a link" });
        fs::remove_file(&pid_file).expect("a link");
    }
    // And while it changes from one to the other.
    let script = "while :; do ln -sf precious x.conf.pid; rm -f x.conf.pid; ln precious x.conf.pid; rm -f x.conf.pid; \
                  : > x.conf.pid; chmod 666 x.conf.pid; rm -f x.conf.pid; done";
    let mut racer = Command::new("sh");
    racer.args(["-c", script]).current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let _racer = KilledAtTheEnd(racer.spawn().expect("a shell"));
    for race in 0..RACES {
        start();
        check(&format!("race {race}"));
    }
}

#[test]
fn the_pid_file_of_a_users_folder_is_made_by_that_user() {
    if !is_root() {
        return;
    }
    let mut daemon = Setup::new(Mode::Plain).argument("--user").argument("nobody").prepare();
    fs::set_permissions(daemon.folder(), Permissions::from_mode(0o755)).expect("a folder of ours");
    chown(daemon.folder(), Some(NOBODY), Some(NOBODY)).expect("root may");
    daemon.start();
    let metadata = fs::metadata(daemon.path("connector.conf.pid")).expect("it runs");
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (NOBODY, 0o644));
    assert_eq!(daemon.command(&["reload"]).status, 0);
    wait_until("it has reloaded", PATIENCE, || daemon.log().contains("Reloaded"));
    assert_eq!(daemon.command(&["stop"]).status, 0);
    assert_eq!(daemon.wait().code(), Some(0));
}

/// The user's settings file is a link to a file of root's, beside which stands a pid file of another service.
#[test]
fn a_link_in_a_users_folder_leads_to_no_pid_file_of_roots() {
    if !is_root() {
        return;
    }
    let mut daemon = Setup::new(Mode::Plain).argument("--user").argument("nobody").prepare();
    let theirs = tempfile::TempDir::new().expect("a folder");
    fs::set_permissions(theirs.path(), Permissions::from_mode(0o755)).expect("a folder of ours");
    let (other, pid_file) = (theirs.path().join("other"), theirs.path().join("other.pid"));
    fs::write(&other, "").expect("a file");
    fs::write(&pid_file, "4242").expect("a file");
    fs::set_permissions(daemon.folder(), Permissions::from_mode(0o755)).expect("a folder of ours");
    fs::remove_file(daemon.path("connector.conf")).expect("a file");
    std::os::unix::fs::symlink(&other, daemon.path("connector.conf")).expect("a link");
    chown(daemon.folder(), Some(NOBODY), Some(NOBODY)).expect("root may");
    daemon.spawn();
    assert_eq!(daemon.wait().code(), Some(73), "{}", daemon.log());
    assert_eq!(fs::read_to_string(&pid_file).expect("a file"), "4242");
    assert_eq!(fs::metadata(&pid_file).expect("a file").uid(), 0);
}

/// The agent's user owns the folder of its socket.
#[test]
fn a_link_in_an_agents_folder_leads_root_to_no_socket_of_roots() {
    if !is_root() {
        return;
    }
    let (folder, roots) = (folder_of_nobody(), tempfile::tempdir().expect("a temporary folder"));
    let (link, socket) = (folder.path().join("agent.sock"), roots.path().join("roots.sock"));
    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("a socket of ours");
    symlink(&socket, &link).expect("a link");
    lchown(&link, Some(NOBODY), Some(NOBODY)).expect("root may");
    let said = command(&["agent", "status", "--socket", text(&link)]);
    assert_eq!(said.status, EX_NOPERM, "{said:?}");
    assert!(listener.accept().is_err(), "root was led there");
}

/// An agent that was stopped accepts nobody: once its queue is full, to connect would wait for ever.
#[test]
fn who_asks_an_agent_that_accepts_nobody_is_told_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0, "a queue of one");
    let _first = UnixStream::connect(&socket).expect("the queue has room for one");
    let said = command_within(PATIENCE, &["agent", "status", "--socket", text(&socket)]);
    assert!(said.status == 1 && said.err.contains("does not answer"), "{said:?}");
    // Nor does one that shall use the same socket wait.
    let settings = folder.path().join("agent.conf");
    let service = r#"{"name": "one", "port": 6000, "passcode": "x", "to": "127.0.0.1:9"}"#;
    fs::write(&settings, format!(r#"{{"connector": "127.0.0.1", "dev": true, "services": [{service}]}}"#))
        .expect("a file");
    let said = command_within(PATIENCE, &["agent", "--config", text(&settings), "--socket", text(&socket)]);
    assert_eq!(said.status, EX_CANTCREAT, "{said:?}");
    assert!(said.err.contains("another agent has it"), "{said:?}");
}
