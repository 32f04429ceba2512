//! Lines on their way to the thread that writes them, and that thread.

use super::writer::Writer;
use crate::limits::ACCESS_LOG_PIECES;
use crate::plural::counted;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait to be written; what comes on top is lost and counted.
const WAITING: usize = 1024;
/// How long [`log::Log::flush`] waits for them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the writing thread has to do.
enum Order {
    /// So many lines, with their line ends.
    Write(Vec<u8>, usize),
    /// Look whether the file is to be reopened. Any other order does as well.
    Look,
    /// Everything before this shall be written; then the other end is dropped.
    Flush(SyncSender<()>),
}

/// The two logs, as the metrics call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Log,
    Access,
}

/// Both, with their labels in the metrics.
pub const LOGS: [(Which, &str); 2] = [(Which::Log, "log"), (Which::Access, "access")];

/// Lines of each that could not be written. Not 64 bits: 32-bit MIPS, many a router, has no such atomics.
static LOST: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// How many lines of a log could not be written since the process started.
pub fn lost(which: Which) -> usize {
    LOST[which as usize].load(Ordering::Relaxed)
}

/// The running log.
#[derive(Clone)]
pub struct Logging {
    orders: Sender<Order>,
    shared: Arc<Shared>,
}

impl Logging {
    /// Has the log file reopened, for log rotation. Nothing is lost, and nobody waits for it: whoever attends to
    /// signals must not depend on a disk or on the reader of a pipe.
    pub fn reopen(&self) {
        // Where it has been told already, it looks when it takes that order.
        if !self.shared.reopen.swap(true, Ordering::AcqRel) {
            let _ = self.orders.send(Order::Look);
        }
    }

    /// Waits until what was handed over is written, but not for ever.
    pub fn flush(&self) {
        flush(&self.orders);
    }
}

fn flush(orders: &Sender<Order>) {
    let (done, answer) = sync_channel(0);
    if orders.send(Order::Flush(done)).is_ok() {
        // Done or too late: either way there is nothing more to do about it.
        let _ = answer.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// The writing thread, and the two ends that feed it.
pub(super) fn pipe(writer: Writer, which: Which) -> io::Result<(Logging, Sink)> {
    let (logging, sink, inbox) = queue(which);
    let shared = Arc::clone(&sink.shared);
    thread::Builder::new()
        .name(LOGS[which as usize].1.to_owned())
        .spawn(move || write_lines(&inbox, writer, &shared))?;
    Ok((logging, sink))
}

/// What is to be written. It takes memory for what waits, and not for all that may: nearly always nothing does.
fn queue(which: Which) -> (Logging, Sink, Receiver<Order>) {
    let (orders, inbox) = channel();
    let most = if which == Which::Access { ACCESS_LOG_PIECES } else { WAITING };
    let none = || AtomicUsize::new(0);
    let shared = Arc::new(Shared { which, most, waiting: none(), reopen: AtomicBool::new(false), unsaid: none() });
    let logging = Logging { orders: orders.clone(), shared: Arc::clone(&shared) };
    (logging, Sink { line: Vec::new(), orders, shared }, inbox)
}

fn write_lines(inbox: &Receiver<Order>, mut writer: Writer, shared: &Shared) {
    while let Ok(order) = inbox.recv() {
        if shared.reopen.swap(false, Ordering::Acquire) {
            writer.reopen();
        }
        match order {
            Order::Write(text, lines) => {
                shared.waiting.fetch_sub(1, Ordering::Relaxed);
                if !writer.write(&text) {
                    shared.lose(lines);
                    continue;
                }
                match (shared.unsaid.swap(0, Ordering::Relaxed), shared.which) {
                    (0, _) => {}
                    (count, Which::Log) => tell_lost(&counted(count, "log line"), count),
                    (count, Which::Access) => tell_lost(&(counted(count, "line") + " of the access log"), count),
                }
            }
            Order::Look => {}
            Order::Flush(done) => drop(done),
        }
    }
}

fn tell_lost(lines: &str, count: usize) {
    log::warn!("{lines} could not be written and {} lost", if count == 1 { "is" } else { "are" });
}

/// What both ends of the queue know.
struct Shared {
    which: Which,
    /// So many pieces may wait ...
    most: usize,
    /// ... and so many do.
    waiting: AtomicUsize,
    /// The file has been moved away: go on in a new one.
    reopen: AtomicBool,
    /// Lines that could not be written, and that the log has not told of.
    unsaid: AtomicUsize,
}

impl Shared {
    fn lose(&self, lines: usize) {
        self.unsaid.fetch_add(lines, Ordering::Relaxed);
        LOST[self.which as usize].fetch_add(lines, Ordering::Relaxed);
    }
}

/// Where the logger writes to: gathers a line and hands it over without ever waiting.
pub(super) struct Sink {
    pub(super) line: Vec<u8>,
    orders: Sender<Order>,
    shared: Arc<Shared>,
}

impl Sink {
    pub(super) fn hand_over(&self, text: Vec<u8>, lines: usize) {
        // Nobody else adds to it.
        if self.shared.waiting.load(Ordering::Relaxed) >= self.shared.most {
            return self.shared.lose(lines);
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if self.orders.send(Order::Write(text, lines)).is_err() {
            self.shared.lose(lines);
        }
    }
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if piece.ends_with(b"\n") {
            // As long as it is, and no longer: many may wait.
            let line = self.line.clone();
            self.line.clear();
            self.hand_over(line, 1);
        }
        Ok(piece.len())
    }

    /// Waits until what was handed over is written, but not for ever.
    fn flush(&mut self) -> io::Result<()> {
        flush(&self.orders);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::fs;
    use std::path::Path;
    use std::time::Instant;

    fn say(sink: &mut Sink, text: &str) {
        writeln!(sink, "{text}").unwrap();
        sink.flush().unwrap();
    }

    #[test]
    fn lines_go_to_the_end_of_the_file_and_to_a_new_one_after_rotation() {
        let folder = Folder::new();
        let (file, old) = (folder.0.join("log"), folder.0.join("log.1"));
        fs::write(&file, "before\n").unwrap();
        let (logging, mut sink) = pipe(Writer::new(Some(&file)).unwrap(), Which::Log).unwrap();
        say(&mut sink, "first");
        fs::rename(&file, &old).unwrap();
        logging.reopen();
        say(&mut sink, "second");
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\nfirst\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), "second\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed_and_no_line_is_lost() {
        let folder = Folder::new();
        let (file, old) = (folder.0.join("log"), folder.0.join("log.1"));
        let (_logging, mut sink) = pipe(Writer::new(Some(&file)).unwrap(), Which::Log).unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        // As logrotate does with `create`, and as it does without.
        for is_made in [true, false] {
            say(&mut sink, "line");
            fs::rename(&file, &old).unwrap();
            if is_made {
                fs::write(&file, "").unwrap();
            }
            let (start, mut lines) = (Instant::now(), text(&old).lines().count());
            while text(&file).is_empty() {
                assert!(start.elapsed() < Duration::from_secs(20), "it goes on in the old file");
                say(&mut sink, "line");
                lines += 1;
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(text(&old).lines().count() + text(&file).lines().count(), lines);
        }
    }

    #[test]
    fn a_folder_that_vanishes_costs_no_more_than_the_new_file() {
        let folder = Folder::new();
        let below = folder.0.join("below");
        fs::create_dir(&below).unwrap();
        let (logging, mut sink) = pipe(Writer::new(Some(&below.join("log"))).unwrap(), Which::Log).unwrap();
        fs::rename(&below, folder.0.join("moved")).unwrap();
        logging.reopen();
        say(&mut sink, "still there");
        assert_eq!(fs::read_to_string(folder.0.join("moved/log")).unwrap(), "still there\n");
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let (_logging, mut sink) = pipe(Writer::new(Some(Path::new("/dev/full"))).unwrap(), Which::Access).unwrap();
        (0..3).for_each(|_| say(&mut sink, "lost"));
        assert_eq!(sink.shared.unsaid.load(Ordering::Relaxed), 3);
        assert!(lost(Which::Access) >= 3, "for the metrics they are counted for good");
    }

    #[test]
    fn a_writer_that_sleeps_stops_nobody() {
        let (logging, mut sink, inbox) = queue(Which::Log);
        (0..WAITING + 5).for_each(|_| writeln!(sink, "line").unwrap());
        assert_eq!(sink.shared.unsaid.load(Ordering::Relaxed), 5);
        logging.reopen();
        assert!(logging.shared.reopen.load(Ordering::Relaxed), "forgotten over the lines that wait");
        assert!(matches!(inbox.recv().unwrap(), Order::Write(line, 1) if line == b"line\n"));
    }
}
