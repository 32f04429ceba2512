//! What the daemon says to the commands `version` and `help`, over the API and on the command line.

/// First line: name and version; then the licence.
pub const VERSION: &str = concat!(
    "Iofog-connector ",
    env!("CARGO_PKG_VERSION"),
    "\nThis is free software under the Eclipse Public License 2.0,\n\
     https://www.eclipse.org/legal/epl-2.0/; there is no warranty."
);

/// Commands and options.
pub const HELP: &str = "\
Usage: iofog-connector COMMAND [OPTIONS]

start            run the daemon in the foreground
stop             end the daemon, wait until it has stopped
reload           make the daemon read settings, certificate, key and token again
status           show whether the daemon runs, and its state
check            validate settings, certificate, mappings and ports without starting
mapping          list, add, remove or show mappings of the running daemon
cert             make a self-signed certificate and its key
agent            make a local service reachable through a Connector
demo             try it out: a Connector, an agent and a web page
version          show the version and the licence
help             show this text

-h, -?, --help   the same as help
-v, --version    the same as version

`iofog-connector COMMAND --help` shows the options of a command.";

/// What `params` may not be: names and values in turn, separated by spaces, of which no name comes
/// twice. No command reads them, but Controllers have always been told of such a slip.
pub(crate) fn repeated_name(params: &str) -> Option<&str> {
    let words: Vec<&str> = params.split(' ').filter(|word| !word.is_empty()).collect();
    let names: Vec<&str> = words.chunks_exact(2).map(|pair| pair[0]).collect();
    names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_version() {
        let expected = format!("Iofog-connector {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(VERSION.lines().next(), Some(expected.as_str()));
    }

    #[test]
    fn a_name_may_come_once() {
        assert_eq!(repeated_name(""), None);
        assert_eq!(repeated_name("a b c d"), None);
        assert_eq!(repeated_name("a b b a c"), None);
        assert_eq!(repeated_name("a b a d"), Some("a"));
    }
}
