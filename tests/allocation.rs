//! The relay's promise that plain bytes cost no allocation: a counting allocator watches the loop's thread.

use iofog_connector::mapping::{AgentPort, Kind, Mapping, Options};
use iofog_connector::relay::command::EventLoop;
use iofog_connector::relay::{ParserSocket, Relay, Setup, reserve_buffers};
use iofog_connector::secret::Secret;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Allocations of the threads that asked to be watched.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn dial(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection")
}

/// Sends `chunks` times 64 KiB one way and reads them on the other side.
fn carry(from: &mut TcpStream, to: &mut TcpStream, chunks: usize) {
    thread::scope(|scope| {
        scope.spawn(move || (0..chunks).for_each(|_| from.write_all(&[7; 65_536]).expect("a reader")));
        let mut buffer = vec![0; 65_536];
        (0..chunks).for_each(|_| to.read_exact(&mut buffer).expect("a writer"));
    });
}

/// The same in frames of version 2, from the user to its agent: as they come.
fn carry_to_frames(from: &mut TcpStream, to: &mut TcpStream, chunks: usize) {
    thread::scope(|scope| {
        scope.spawn(move || (0..chunks).for_each(|_| from.write_all(&[7; 65_536]).expect("a reader")));
        let (mut buffer, mut left) = (vec![0; 65_536], chunks * 65_536);
        while left > 0 {
            let mut header = [0; 4];
            to.read_exact(&mut header).expect("a header");
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            to.read_exact(&mut buffer[..length]).expect("a payload");
            // OPEN and WANT come first.
            left -= if header[0] == 2 { length } else { 0 };
        }
    });
}

/// And back.
fn carry_from_frames(from: &mut TcpStream, to: &mut TcpStream, chunks: usize) {
    let frame = [&[2, 1, 0xff, 0xfc][..], &[7; 65_532]].concat();
    thread::scope(|scope| {
        scope.spawn(move || (0..chunks).for_each(|_| from.write_all(&frame).expect("a reader")));
        let mut buffer = vec![0; 65_532];
        (0..chunks).for_each(|_| to.read_exact(&mut buffer).expect("a writer"));
    });
}

#[test]
fn a_relayed_chunk_costs_no_allocation() {
    let (parser, _listener) = ParserSocket::new().expect("a private socket");
    let (listen, api_port) = (Some(Ipv4Addr::LOCALHOST.into()), free_port());
    let metrics_listen = None;
    let (broker, tls, controllers) = (None, None, None);
    let setup = Setup {
        listen,
        api_port,
        metrics_listen,
        broker,
        tls,
        controllers,
        connections: 100,
        sockets: 200,
        trust_proxy: Vec::new(),
        parser,
        access_log: None,
    };
    let (mut relay, handle) = Relay::new(setup, reserve_buffers(16).expect("memory")).expect("a relay");
    thread::spawn(move || {
        WATCHED.set(true);
        relay.run(|_| ())
    });
    let (port, users, passcode) = (free_port(), free_port(), Secret::random());
    let agents = AgentPort { port, passcode: passcode.clone(), max_connections: 4, absence: None };
    let mapping = Mapping { id: "the one".into(), kind: Kind::Public { agents, users }, options: Options::default() };
    handle.open(&mapping).expect("a loop").expect("two free ports");

    let hello = b"\0iofog/2\x02\0\xff\xfctoken 42";
    for (said, heard, up, down) in [
        (&b""[..], 10, carry as fn(&mut TcpStream, &mut TcpStream, usize), carry as _),
        (&hello[..], 30, carry_to_frames as _, carry_from_frames as fn(&mut TcpStream, &mut TcpStream, usize)),
    ] {
        let mut agent = dial(port);
        agent.write_all(&[passcode.expose().as_bytes(), said].concat()).expect("a passcode");
        agent.read_exact(&mut vec![0; heard]).expect("AUTHORIZED, and a hello");
        let mut user = dial(users);
        // Joins them, and lets every queue reach the size that it keeps.
        up(&mut user, &mut agent, 50);
        down(&mut agent, &mut user, 50);

        let before = ALLOCATIONS.load(Ordering::Relaxed);
        up(&mut user, &mut agent, 2_000);
        down(&mut agent, &mut user, 2_000);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        println!("{allocations} allocations for 4,000 chunks");
        // Once a second the loop looks around, which may cost a few.
        assert!(allocations < 100, "{allocations} allocations for 4,000 chunks");
        assert!(before > 0, "the loop was not watched");
    }
}
