//! What the program says of itself, and of words that it does not know.

use crate::harness::command;

const EX_USAGE: i32 = 64;

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
fn a_command_line_that_is_wrong_is_said_so_on_standard_error() {
    let wrong: [&[&str]; 7] = [
        &[],
        &["begin"],
        &["status", "--jsno"],
        &["start", "--log-level", "loud"],
        &["mapping"],
        &["mapping", "show"],
        &["stop", "--timeout", "soon"],
    ];
    for words in wrong {
        let said = command(words);
        assert_eq!((said.status, said.out.as_str()), (EX_USAGE, ""), "{words:?}");
        assert!(said.err.contains("iofog-connector help"), "{words:?} gave {}", said.err);
    }
}

#[test]
fn an_option_and_its_value_are_two_words_or_one() {
    for words in [&["check", "--config", "/nowhere/a=b.conf"][..], &["check", "--config=/nowhere/a=b.conf"]] {
        let said = command(words);
        assert_eq!(said.status, 78, "{words:?} gave {}", said.err);
        assert!(said.err.contains("/nowhere/a=b.conf"), "{words:?} gave {}", said.err);
    }
}
