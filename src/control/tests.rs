use super::fake::FakeLoop;
use super::*;
use crate::relay::api::caller::{self, ApiCaller};
use crate::relay::api::request::{Collector, Step};
use crate::testing::Folder;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

const PUBLIC: &str = r#"{"type":"public","maxconnections":60,"heartbeatabsencethreshold":200000}"#;
const HERE: ApiCaller = ApiCaller { ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), is_here: true, only_reads: false };
const AWAY: ApiCaller =
    ApiCaller { ip: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), is_here: false, only_reads: false };

/// A control thread that runs, with a loop that binds nothing.
struct Daemon {
    folder: Folder,
    socket: PathBuf,
    fake: FakeLoop,
    reloads: Sender<Reload>,
}

fn config(folder: &Folder, more: &str) -> Config {
    let text = format!(r#"{{"ports": ["6000-6999"], "broker": 12345{more}}}"#);
    Config::parse(&crate::layout::Layout::new(folder.0.join("iofog-connector.conf"), None, None), text.as_bytes())
        .unwrap()
}

fn reload(folder: &Folder, more: &str, token: Option<&str>) -> Reload {
    Reload::TakenOver { config: Box::new(config(folder, more)), token: token.map(Secret::new) }
}

impl Daemon {
    fn start(folder: Folder, more: &str) -> Self {
        Self::start_with(folder, more, None)
    }

    fn start_with(folder: Folder, more: &str, token: Option<&str>) -> Self {
        let fake = FakeLoop::default();
        let socket = folder.0.join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let (reloads, inbox) = channel();
        let config = config(&folder, more);
        let (store, mappings) = Store::open(&config.state_file("configs.json")).unwrap();
        let token = token.map(Secret::new);
        let setup = Setup { config, token, store, mappings, relay: Box::new(fake.clone()), listener, reloads: inbox };
        let control = Control::new(setup).unwrap();
        control.restore().unwrap();
        thread::spawn(move || control.run());
        Self { folder, socket, fake, reloads }
    }

    /// Sends bytes as they are.
    fn send_raw(&self, bytes: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Sends a request the way the loop does.
    fn send(&self, peer: &ApiCaller, path: &str, headers: &str, body: &str) -> UnixStream {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let length = body.len();
        let text =
            format!("POST {path} HTTP/1.1\r\nHost: c\r\n{form}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let mut collector = Collector::default();
        collector.push(text.as_bytes());
        match collector.next(peer) {
            Step::Request { bytes, .. } => self.send_raw(&bytes),
            step => panic!("{step:?}"),
        }
    }

    fn post(&self, path: &str, body: &str) -> (u16, serde_json::Value) {
        answer(self.send(&HERE, path, "", body))
    }

    fn stored(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("configs.json")).unwrap()
    }
}

/// The status and the body, which must be as long as `Content-Length` says.
fn answer(mut stream: UnixStream) -> (u16, serde_json::Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn what_is_answered_is_durable_and_restored() {
    let daemon = Daemon::start(Folder::new(), "");
    let (status, added) = daemon.post("/api/v2/mapping/add", &format!("mapping={PUBLIC}"));
    assert_eq!(status, 200, "{added}");
    let id = added["id"].as_str().unwrap();
    assert!(daemon.stored().contains(id));
    // A second daemon on the same folder, as after a crash.
    let socket = daemon.socket.clone();
    std::fs::remove_file(socket).unwrap();
    let again = Daemon::start(daemon.folder, "");
    assert!(again.fake.world().open.contains_key(id));
    let (_, next) = again.post("/api/v2/mapping/add", PUBLIC);
    assert_eq!(next["port1"], 6002, "the restored mapping's ports are taken");
}

#[test]
fn requests_that_queue_up_are_all_answered_and_all_durable() {
    let daemon = Daemon::start(Folder::new(), "");
    let waiting: Vec<UnixStream> = (0..100).map(|_| daemon.send(&AWAY, "/api/v2/mapping/add", "", PUBLIC)).collect();
    let ids: Vec<String> =
        waiting.into_iter().map(|stream| answer(stream).1["id"].as_str().unwrap().to_owned()).collect();
    let stored = daemon.stored();
    assert!(ids.iter().all(|id| stored.contains(id)));
    assert_eq!(daemon.fake.world().open.len(), 100);
}

#[test]
fn a_failed_save_is_answered_500_with_the_reason() {
    let daemon = Daemon::start(Folder::new(), "");
    daemon.post("/api/v2/mapping/add", PUBLIC);
    // In the place of the next version there is a folder: nothing can be written.
    let obstacle = daemon.folder.0.join("configs.json.new");
    std::fs::create_dir(&obstacle).unwrap();
    let before = daemon.stored();
    let (status, failed) = daemon.post("/api/v2/mapping/add", PUBLIC);
    assert_eq!((status, &failed["status"]), (500, &"failed".into()));
    assert!(failed["errormessage"].as_str().unwrap().contains("configs.json: could not write"), "{failed}");
    assert_eq!((daemon.fake.world().open.len(), daemon.stored()), (1, before));
    std::fs::remove_dir(obstacle).unwrap();
    assert_eq!(daemon.post("/api/v2/mapping/add", PUBLIC).0, 200);
}

#[test]
fn only_what_came_through_the_loop_is_believed() {
    let daemon = Daemon::start(Folder::new(), "");
    let text = "POST /api/v2/status HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(answer(daemon.send_raw(text.as_bytes())).0, 403);
}

#[test]
fn controllers_and_token_are_asked_for_on_every_path_and_follow_the_settings() {
    let daemon = Daemon::start_with(Folder::new(), r#", "controllers": ["192.0.2.0/24"]"#, Some("s3cret"));
    let status = |peer, path, headers: &str| answer(daemon.send(peer, path, headers, "mappingid=all")).0;
    let token = "Authorization: Bearer s3cret\r\n";
    for path in ["/api/v2/status", "/nonsense"] {
        assert_eq!(status(&HERE, path, token), 403);
        assert_eq!(status(&AWAY, path, ""), 401);
    }
    assert_eq!(status(&AWAY, "/api/v2/status", token), 200);
    let follow = |more, token| daemon.reloads.send(reload(&daemon.folder, more, token)).unwrap();
    follow("", None);
    assert_eq!(status(&HERE, "/api/v2/status", ""), 200, "the first request after that follows the new settings");
    follow(r#", "controllers": ["192.0.2.0/24"]"#, None);
    assert_eq!(status(&HERE, "/api/v2/status", ""), 403, "and nobody gets in by the old ones");
    follow("", Some("an0ther"));
    assert_eq!(status(&AWAY, "/api/v2/status", token), 401);
    assert_eq!(status(&AWAY, "/api/v2/status", "Authorization: Bearer an0ther\r\n"), 200);
}

#[test]
fn a_request_that_was_cut_off_is_not_carried_out() {
    let daemon = Daemon::start(Folder::new(), "");
    let whole = |body: &str, length: usize| {
        let (name, peer) = (caller::HEADER, HERE.write());
        format!(
            "POST /api/v2/commandline HTTP/1.1\r\n{name}: {peer}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let stream = daemon.send_raw(whole("command=stop", "command=stop".len() + 5000).as_bytes());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (status, refusal) = answer(stream);
    assert_eq!(status, 400, "{refusal}");
    assert_eq!(answer(daemon.send_raw(whole("command=stop", "command=stop".len()).as_bytes())).0, 200);
}

#[test]
fn stop_is_answered_before_the_loop_is_told() {
    let daemon = Daemon::start(Folder::new(), "");
    assert_eq!(answer(daemon.send(&AWAY, "/api/v2/commandline", "", "command=stop")).0, 403);
    assert!(!daemon.fake.world().stopped);
    let (_, said) = daemon.post("/api/v2/commandline", "command=stop");
    assert_eq!(said["response"], "Connector stopped... :)");
    let until = Instant::now() + Duration::from_secs(10);
    while !daemon.fake.world().stopped {
        assert!(Instant::now() < until, "the loop was not told to stop");
        thread::yield_now();
    }
}

#[test]
fn long_answers_to_slow_readers_hold_up_nobody_and_are_few() {
    let folder = Folder::new();
    let path = folder.0.join("socket");
    let mut requests = Requests::new(UnixListener::bind(&path).unwrap()).unwrap();
    let mut ask = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        (stream, requests.wait(Duration::from_secs(10)).unwrap())
    };
    let (text, writers) = ("x".repeat(8 << 20), Arc::default());
    let slow: Vec<UnixStream> = (0..LONG_ANSWERS)
        .map(|_| {
            let (stream, request) = ask();
            respond(request, Answer::of(&text), &writers);
            stream
        })
        .collect();
    // respond has returned though nothing has been read.
    let (one_more, request) = ask();
    respond(request, Answer::of(&text), &writers);
    let (status, refusal) = answer(one_more);
    assert_eq!((status, &refusal["status"]), (503, &"failed".into()));
    for stream in slow {
        assert_eq!(answer(stream), (200, text.as_str().into()));
    }
    let until = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&writers) > 1 {
        assert!(Instant::now() < until, "a writer's place was not given back");
        thread::yield_now();
    }
}
