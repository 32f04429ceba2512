//! What people and programs read: aligned columns on a terminal, tabs in a pipe.
//!
//! Much of it comes from others: from a daemon, from files. None of it may give orders to the terminal.

use super::NAME;
use crate::exit;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that was to be said is lost. The command does its work all the same, and then says so by its exit status.
static LOST: AtomicBool = AtomicBool::new(false);

/// To standard output.
pub(super) fn say(text: impl Display) {
    put(&(printable(&text.to_string(), |c| c == '\n') + "\n"));
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        // A reader that has left (`| head`) has what it wanted.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
        Err(e) if !LOST.swap(true, Ordering::Relaxed) => complain(format!("standard output cannot be written: {e}")),
        Err(_) => {}
    }
}

/// The exit status of a command that has come to `status`: it is no success if what was asked for could not be said.
pub(super) fn settled(status: u8) -> u8 {
    if status == exit::OK && LOST.load(Ordering::Relaxed) { exit::IO_ERROR } else { status }
}

/// To standard error.
pub(super) fn complain(problem: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{NAME}: {}", printable(&problem.to_string(), |c| c == '\n'));
}

/// The text with control characters, other than those that `may_stay`, as `\u{1b}`.
fn printable(text: &str, may_stay: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_order = |c: char| c.is_control() && !may_stay(c);
    if !text.contains(is_order) {
        return text.into();
    }
    let escaped = |c: char| if is_order(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

/// Rows of cells, the first one the heads of the columns.
pub(super) fn say_table(rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell, |_| false).into_owned()).collect()).collect();
    let text = if io::stdout().is_terminal() { aligned(&rows) } else { tabbed(&rows) };
    put(&text);
}

/// Names and their values, one a line.
pub(super) fn say_facts(facts: &[(&str, String)]) {
    let rows: Vec<_> = facts.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    say_table(&rows);
}

/// One line a row, a tab between cells: the same whatever the others hold.
fn tabbed(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join("\t") + "\n").collect()
}

/// Columns as wide as their widest cell, two spaces between them.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["id", "port1"], ["a-long-one", "6000"], ["b", ""]].map(|row| row.map(str::to_owned).to_vec()).to_vec()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(aligned(&rows()), "id          port1\na-long-one  6000\nb\n");
    }

    #[test]
    fn what_others_say_gives_no_orders_to_the_terminal() {
        assert_eq!(printable("\u{1b}]0;x\u{7}\u{9b}2J\r\nä", |c| c == '\n'), "\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{d}\nä");
        assert_eq!(printable("a\tb\n", |_| false), "a\\u{9}b\\u{a}");
        assert!(matches!(printable("nothing to do\n", |c| c == '\n'), Cow::Borrowed(_)));
    }

    #[test]
    fn in_a_pipe_there_is_one_tab_between_cells() {
        assert_eq!(tabbed(&rows()), "id\tport1\na-long-one\t6000\nb\t\n");
    }
}
