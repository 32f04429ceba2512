//! What is said of a command line that is wrong: what was found, what was expected, and the nearest word that there is.
//!
//! The parser's own messages speak of its types; here they are put into the operator's words. The commands and options
//! that there are stand in the parser's help, and are read from there.

use super::{Arguments, NAME};
use argh::{EarlyExit, FromArgs};

/// Words that the parser does not know in the form in which people write them: `-h`, `help COMMAND`.
pub(super) fn normalized<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let (words, asks) = match words {
        ["help", command @ ..] if !command.is_empty() => (command, true),
        [command @ .., "-h" | "-?"] if !command.is_empty() => (command, true),
        words => (words, false),
    };
    let mut words: Vec<&str> = words.iter().filter(|word| !asks || !is_help(word)).copied().collect();
    if asks {
        words.push("--help");
    }
    words
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "--help" | "-h" | "-?")
}

/// What is wrong with `words`, of which the parser says `problem`.
pub(super) fn explained(words: &[&str], problem: &str) -> String {
    let path = path(words);
    let place = path.join(" ");
    let said = match problem.split_once(": ").unwrap_or((problem, "")) {
        ("Unrecognized argument", word) => unknown(&path, word.trim()),
        (head, why) if head.starts_with("Error parsing ") => match parsed(head) {
            // There may be a password in it.
            Some((name @ "--proxy", _)) => format!("{name}: {why}"),
            Some((name, value)) if why.contains(&format!("{value:?}")) => format!("{name}: {why}"),
            Some((name, value)) => format!("{name}: found {value:?}; {}", expected(why)),
            None => problem.to_owned(),
        },
        _ if problem.starts_with("No value provided for option") => {
            format!("{}: expected a value", quoted(problem).unwrap_or("the option"))
        }
        _ if problem.starts_with("Required ") => {
            let missing: Vec<&str> = problem.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect();
            format!("{place}: expected {}", missing.join(" and "))
        }
        _ if problem.starts_with("One of the following") => {
            format!("{place}: expected a command: {}", commands(&path).join(", "))
        }
        _ => problem.to_owned(),
    };
    let hint = match path.as_slice() {
        [] => format!("`{NAME} help` lists the commands, `{NAME} help COMMAND` the options of one"),
        _ => format!("`{NAME} help {place}` shows what it takes"),
    };
    format!("{said}\n{hint}")
}

/// The commands that `words` begin with, as far as there are such.
fn path<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut path = Vec::new();
    for word in words {
        if !commands(&path).iter().any(|command| command == word) {
            break;
        }
        path.push(*word);
    }
    path
}

fn unknown(path: &[&str], word: &str) -> String {
    let place = path.join(" ");
    let (what, known) = match commands(path) {
        _ if word.starts_with('-') => ("option", options(path)),
        none if none.is_empty() => return format!("{place}: takes no {word:?}"),
        commands => ("command", commands),
    };
    let of = if place.is_empty() { String::new() } else { format!(" of `{place}`") };
    let nearest = nearest(word, &known).map_or(String::new(), |it| format!(", did you mean `{it}`?"));
    format!("unknown {what} `{word}`{of}{nearest}")
}

/// The name and the value in `option '--days' with value 'x'`.
fn parsed(head: &str) -> Option<(&str, &str)> {
    let (name, value) = head.split_once("with value ")?;
    Some((quoted(name)?, quoted(value)?))
}

fn quoted(text: &str) -> Option<&str> {
    let text = &text[text.find('\'')? + 1..];
    Some(&text[..text.rfind('\'')?])
}

/// What was expected, where the parser quotes the standard library.
fn expected(why: &str) -> String {
    match why.trim() {
        "invalid digit found in string" | "cannot parse integer from empty string" => "expected a whole number".into(),
        "number too large to fit in target type" => "expected a smaller number".into(),
        "invalid IP address syntax" => "expected an IP address, like 192.0.2.1 or 2001:db8::1".into(),
        why => why.to_owned(),
    }
}

/// The commands of a command; those of the program for none.
fn commands(path: &[&str]) -> Vec<String> {
    let help = help(path);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next().filter(|_| line.as_bytes()[2] != b' '));
    let own = if path.is_empty() { &["version", "help"][..] } else { &[] };
    names.chain(own.iter().copied()).map(str::to_owned).collect()
}

fn options(path: &[&str]) -> Vec<String> {
    let help = help(path);
    let names = help.lines().filter_map(|line| line.trim_start().split([' ', ',']).find(|word| word.starts_with("--")));
    names.map(str::to_owned).collect()
}

/// The parser's help of a command.
fn help(path: &[&str]) -> String {
    let words = [path, &["--help"]].concat();
    match Arguments::from_args(&[NAME], &words) {
        Err(EarlyExit { output, status: Ok(()) }) => output,
        _ => String::new(),
    }
}

/// The one of `known` that is a slip away from `word`.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let most = word.trim_start_matches('-').chars().count().div_ceil(3);
    let distances = known.iter().map(|it| (distance(word, it), it.as_str()));
    distances.filter(|(distance, _)| *distance <= most).min().map(|(_, it)| it)
}

/// How many letters must be put in, left out, changed or swapped with the next.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let is_swapped = i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b;
            let swapped = if is_swapped { rows[i - 1][j - 1] + 1 } else { usize::MAX };
            row.push(changed.min(swapped).min(row[j] + 1).min(rows[i][j + 1] + 1));
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognized() {
        for (word, meant) in [("stauts", "status"), ("strat", "start"), ("mappping", "mapping"), ("chek", "check")] {
            assert_eq!(nearest(word, &commands(&[])), Some(meant));
        }
        assert_eq!(nearest("nonsense", &commands(&[])), None);
        assert_eq!(nearest("--jsno", &options(&["status"])), Some("--json"));
        assert_eq!(nearest("shwo", &commands(&["mapping"])), Some("show"));
    }

    #[test]
    fn help_is_asked_for_in_many_ways() {
        for words in [&["help", "mapping", "add"][..], &["mapping", "add", "-h"], &["mapping", "add", "-?"]] {
            assert_eq!(normalized(words), ["mapping", "add", "--help"]);
        }
        assert_eq!(normalized(&["status", "--json"]), ["status", "--json"]);
    }
}
