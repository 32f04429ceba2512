//! The options that every command about a daemon has: the parser cannot share them between commands.

use crate::layout::DEFAULT_SETTINGS;
use std::path::PathBuf;

/// Declares a command about the daemon of a settings file: `"name" Type { further options }`. One that looks at the
/// daemon's lock is declared `with pid_file`, and has a `layout`.
macro_rules! daemon_command {
    ($(#[$about:meta])* $name:literal $Command:ident { $($options:tt)* }) => {
        $(#[$about])*
        #[derive(argh::FromArgs)]
        #[argh(subcommand, name = $name)]
        pub(super) struct $Command {
            /// settings file (default: /etc/iofog-connector/iofog-connector.conf)
            #[argh(option, default = "crate::cli::options::default_settings()", arg_name = "file")]
            config: std::path::PathBuf,
            /// state folder, if the daemon was started with one of its own
            #[argh(option, arg_name = "folder")]
            state: Option<std::path::PathBuf>,
            $($options)*
        }
    };
    ($(#[$about:meta])* $name:literal $Command:ident with pid_file { $($options:tt)* }) => {
        daemon_command! {
            $(#[$about])*
            $name $Command {
                /// pid file, if the daemon was started with one of its own
                #[argh(option, arg_name = "file")]
                pid_file: Option<std::path::PathBuf>,
                $($options)*
            }
        }

        impl $Command {
            fn layout(&self) -> crate::layout::Layout {
                crate::layout::Layout::new(self.config.clone(), self.state.clone(), self.pid_file.clone())
            }
        }
    };
}

pub(super) fn default_settings() -> PathBuf {
    DEFAULT_SETTINGS.into()
}
