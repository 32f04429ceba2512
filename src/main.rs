//! The command line: one function a command.

use argh::FromArgs;
use iofog_connector::{agent, daemon};
use log::{LevelFilter, error};
use std::path::PathBuf;
use std::process::ExitCode;

/// Relay for edge computing: joins outside users to agents behind NAT, and agents to each other.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Start(Start),
    Agent(agent::arguments::Arguments),
}

/// Run the daemon in the foreground.
#[derive(FromArgs)]
#[argh(subcommand, name = "start")]
struct Start {
    /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
    #[argh(option, default = "PathBuf::from(\"/etc/iofog-connector/iofog-connector.conf\")")]
    config: PathBuf,
    /// error, warn, info (default), debug or trace
    #[argh(option, default = "LevelFilter::Info")]
    log_level: LevelFilter,
}

fn main() -> ExitCode {
    let Arguments { command } = argh::from_env();
    match command {
        Command::Start(start) => run_daemon(&start),
        Command::Agent(arguments) => run_agent(&arguments),
    }
}

fn run_daemon(start: &Start) -> ExitCode {
    let _ = simplelog::SimpleLogger::init(start.log_level, Default::default());
    match daemon::start(&start.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e}");
            ExitCode::from(e.status())
        }
    }
}

fn run_agent(arguments: &agent::arguments::Arguments) -> ExitCode {
    let _ = simplelog::SimpleLogger::init(arguments.log_level, Default::default());
    match agent::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e}");
            ExitCode::from(e.status())
        }
    }
}
