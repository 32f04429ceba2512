//! An answer that comes before the upload is over, such as HTTP's 413, arrives all the same.

use crate::harness::{
    AgentProgram, Daemon, Heard, Mapping, PATIENCE, Payload, Peer, Service, in_both_modes, in_both_versions,
};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 30;
/// Far more than all buffers on the way hold.
const UPLOAD: usize = 8 << 20;
pub const ANSWER: usize = 100_000;
/// What a closed socket has delivered by then, since it fits the reader's first window.
const SHORT_ANSWER: usize = 16_000;

/// What a user that uploads and listens at the same time gets.
pub fn answer_during_upload(user: &Peer) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (chunk, mut left) = (vec![b'u'; 64 * 1024], UPLOAD);
            while left > 0 && user.try_send(&chunk, PATIENCE).is_ok_and(|taken| taken) {
                left -= chunk.len();
            }
        });
        // The user is slow to listen: the end of the session has passed by then.
        thread::sleep(Duration::from_millis(100));
        let mut heard = Vec::new();
        while let Heard::Message(bytes) = user.hear(PATIENCE) {
            heard.extend(bytes);
        }
        heard
    })
}

fn count_whole_answers(daemon: &Daemon, mapping: &Mapping, length: usize) -> usize {
    let expected = Payload::new(413).take(length);
    (0..ROUNDS).filter(|_| answer_during_upload(&daemon.user(mapping)) == expected).count()
}

#[test]
fn a_service_that_answers_before_it_has_read_all_is_heard() {
    in_both_versions(|daemon, version| {
        let service = Service::start(|mut stream| {
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(&Payload::new(413).take(ANSWER));
            let _ = stream.shutdown(Shutdown::Write);
            // It reads on for a while, as careful servers do: without a relay every user gets the answer.
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until && stream.read(&mut [0; 64 * 1024]).is_ok_and(|count| count > 0) {}
        });
        let mapping = daemon.add_public(4);
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 4).start();
        assert_eq!(count_whole_answers(daemon, &mapping, ANSWER), ROUNDS);
    });
}

#[test]
fn a_service_that_answers_and_closes_is_heard() {
    in_both_versions(|daemon, version| {
        let service = Service::start(|mut stream| {
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(&Payload::new(413).take(SHORT_ANSWER));
            // What the user still sends meets a closed socket.
            let _ = stream.shutdown(Shutdown::Write);
        });
        let mapping = daemon.add_public(4);
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 4).start();
        assert_eq!(count_whole_answers(daemon, &mapping, SHORT_ANSWER), ROUNDS);
    });
}

#[test]
fn an_agent_that_answers_before_it_has_read_all_is_heard() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        for _ in 0..ROUNDS {
            let (agent, user) = (daemon.agent(&mapping), daemon.user(&mapping));
            thread::scope(|scope| {
                scope.spawn(|| {
                    agent.expect_some();
                    agent.send(&Payload::new(413).take(ANSWER));
                    agent.finish();
                    agent.expect_end_at_last(PATIENCE);
                });
                assert!(answer_during_upload(&user) == Payload::new(413).take(ANSWER));
            });
        }
    });
}
