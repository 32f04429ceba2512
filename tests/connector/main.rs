//! Drives the real binary over real sockets, against docs/protocol.md.
//!
//! One test program, so that tests that wait for a deadline of the daemon do so beside the others. Nothing here
//! uses the daemon's own code: the harness speaks HTTP, TLS and the agents' protocol by itself.

mod abuse;
mod access_log;
mod agent;
mod agents;
mod api;
mod broker;
mod bulk;
mod cli_cert;
mod cli_check;
mod cli_demo;
mod cli_mapping;
mod cli_start_stop;
mod cli_status;
mod cli_words;
mod clock;
mod crashes;
mod durability;
mod early_answer;
mod exhaustion;
mod fairness;
mod footprint;
mod frames;
mod fuzz;
mod golden;
mod harness;
mod health;
mod hostile;
mod http;
mod identity;
mod leftovers;
mod lifecycle;
mod log_lines;
mod logs;
mod mapping_options;
mod model;
mod monitoring;
mod mutual_tls;
mod private;
mod private_frames;
mod privileges;
mod prompts;
mod proxies;
mod public;
mod reload;
mod round_trip;
mod settings;
mod shortage;
mod state;
mod stopping;
mod strangers;
mod supervision;
mod tls_records;
mod truncation;
