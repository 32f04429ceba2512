//! The program. Everything it can do is in the library; see [`iofog_connector::cli`].

use iofog_connector::{cli, crash};
use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    crash::end_on_panic();
    ExitCode::from(cli::run(std::env::args_os().skip(1)))
}
