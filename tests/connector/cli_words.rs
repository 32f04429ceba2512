//! What the program says of itself, and of words that it does not know.

use crate::harness::{BINARY, Mode, Setup, command};
use std::fs::OpenOptions;
use std::process::{Command, Stdio};

const EX_USAGE: i32 = 64;
const EX_IOERR: i32 = 74;

#[test]
fn the_version_comes_first_and_the_licence_behind_it() {
    for word in ["version", "-v", "--version"] {
        let said = command(&[word]);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{word}");
        let mut lines = said.out.lines();
        assert_eq!(lines.next(), Some(concat!("Iofog-connector ", env!("CARGO_PKG_VERSION"))), "{word}");
        assert!(lines.next().is_some_and(|line| line.contains("Eclipse Public License")), "{word}: {}", said.out);
    }
}

#[test]
fn help_lists_every_command_and_each_command_its_options() {
    let said = command(&["help"]);
    for word in ["-h", "-?", "--help"] {
        assert_eq!(command(&[word]).out, said.out, "{word}");
    }
    for name in ["start", "stop", "reload", "status", "check", "mapping", "agent", "demo", "cert"] {
        assert!(said.out.lines().any(|line| line.starts_with(name)), "{name} is not in {}", said.out);
        let options = command(&[name, "--help"]);
        assert_eq!((options.status, options.err.as_str()), (0, ""), "{name}");
        assert!(options.out.contains(&format!("iofog-connector {name}")), "{}", options.out);
    }
    for action in ["list", "add", "remove", "show"] {
        assert!(command(&["mapping", action, "--help"]).out.contains("--config"), "{action}");
    }
}

#[test]
fn help_is_asked_for_before_or_behind_a_command() {
    for words in [&["help", "start"][..], &["start", "-h"], &["start", "-?"], &["start", "help"]] {
        assert_eq!(command(words).out, command(&["start", "--help"]).out, "{words:?}");
    }
    assert!(command(&["help", "mapping", "add"]).out.contains("--connections"));
    assert_eq!(command(&["help", "nonsense"]).status, EX_USAGE);
}

#[test]
fn without_a_command_the_help_is_shown_and_nothing_is_done() {
    let said = command(&[]);
    assert_eq!((said.status, said.out.as_str()), (EX_USAGE, ""));
    assert!(said.err.ends_with(&command(&["help"]).out), "{}", said.err);
}

#[test]
fn a_command_line_that_is_wrong_is_said_so_on_standard_error() {
    let wrong: [(&[&str], &str); 18] = [
        (&["begin"], "unknown command `begin`\n"),
        (&["stauts"], "unknown command `stauts`, did you mean `status`?"),
        (&["status", "--jsno"], "unknown option `--jsno` of `status`, did you mean `--json`?"),
        (&["start", "--log-level", "loud"], "--log-level: found \"loud\"; expected error, warn, info, debug or trace"),
        (&["start", "--config"], "--config: expected a value"),
        (&["start", "now"], "start: takes no \"now\""),
        (&["mapping"], "mapping: expected a command: list, add, remove, show"),
        (&["mapping", "shwo"], "unknown command `shwo` of `mapping`, did you mean `show`?"),
        (&["mapping", "show"], "mapping show: expected id"),
        (&["mapping", "add", "--connections", "abc"], "--connections: found \"abc\"; expected a whole number"),
        (&["mapping", "add", "--connections", "70000"], "--connections: found \"70000\"; expected a smaller number"),
        (&["mapping", "add", "--conections", "7"], "did you mean `--connections`?"),
        (&["stop", "--timeout", "soon"], "--timeout: found \"soon\"; expected a whole number"),
        (&["agent", "--connector", "x"], "--connector: \"x\" is no target; expected HOST:PORT"),
        (&["agent", "--proxy", "ftp://x"], "--proxy: expected socks5://HOST:PORT or http://HOST:PORT"),
        (&["cert", "--address", "x"], "--address: found \"x\"; expected an IP address"),
        (&["cert", "--days", "-1"], "--days: found \"-1\"; expected a whole number"),
        (&["demo", "more"], "demo: takes no \"more\""),
    ];
    for (words, problem) in wrong {
        let said = command(words);
        assert_eq!((said.status, said.out.as_str()), (EX_USAGE, ""), "{words:?}");
        assert!(said.err.contains(problem), "{words:?} gave {}", said.err);
        assert!(said.err.contains("iofog-connector help"), "{words:?} gave {}", said.err);
    }
    let said = command(&["agent", "--proxy", "socks4://user:hush-hush@proxy:1080"]);
    assert!(said.status == EX_USAGE && !said.err.contains("hush"), "{}", said.err);
}

#[test]
fn an_option_and_its_value_are_two_words_or_one() {
    for words in [&["check", "--config", "/nowhere/a=b.conf"][..], &["check", "--config=/nowhere/a=b.conf"]] {
        let said = command(words);
        assert_eq!(said.status, 78, "{words:?} gave {}", said.err);
        assert!(said.err.contains("/nowhere/a=b.conf"), "{words:?} gave {}", said.err);
    }
}

/// The status and the complaints of a command whose standard output is this.
fn with_output(output: impl Into<Stdio>, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    let done = command.args(words).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).output();
    let done = done.expect("the binary");
    (done.status.code(), String::from_utf8(done.stderr).expect("UTF-8"))
}

#[test]
fn output_that_cannot_be_written_is_an_error_unless_its_reader_has_left() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let id = daemon.add_public(1).id;
    let settings = daemon.path("connector.conf");
    let settings = settings.to_str().expect("UTF-8");
    let of_daemon: [&[&str]; 9] = [
        &["status"],
        &["status", "--json"],
        &["check"],
        &["start"],
        &["mapping", "list"],
        &["mapping", "show", &id],
        &["mapping", "add"],
        &["mapping", "list", "--json"],
        &["mapping", "remove", &id],
    ];
    let of_nobody: [&[&str]; 3] = [&["version"], &["help"], &["mapping", "add", "--help"]];
    let of_daemon = of_daemon.iter().map(|words| [words, &["--config", settings][..]].concat());
    let commands: Vec<Vec<&str>> = of_daemon.chain(of_nobody.map(<[_]>::to_vec)).collect();
    // What is done first cannot be done twice.
    for words in commands.iter().filter(|words| !words.contains(&"remove")) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (status, complaints) = with_output(writer, words);
        assert_eq!(status, Some(0), "{words:?}: {complaints}");
        assert!(!complaints.contains("standard output"), "{words:?}: {complaints}");
    }
    for words in &commands {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let (status, complaints) = with_output(full, words);
        assert_eq!(status, Some(EX_IOERR), "{words:?}: {complaints}");
        assert!(complaints.contains("standard output cannot be written"), "{words:?}: {complaints}");
    }
    assert_eq!(daemon.command(&["mapping", "show", &id]).status, 65, "it was removed all the same");
    // Who stops the daemon has stopped it, and what is worse than lost words is told rather.
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    assert_eq!(with_output(full(), &["stop", "--config", settings]).0, Some(EX_IOERR));
    assert_eq!(with_output(full(), &["status", "--config", settings]).0, Some(3));
    assert_eq!(daemon.wait().code(), Some(0));
}
