//! The `flowstone` binary: configuration, wiring and signals.
//!
//! Owns the settings, the data directory's lock and format version, and the order of starting and stopping. Must not know anyone else's logic.
//!
//! Invariants. One process per data directory. Nothing listens beyond loopback without TLS and passwords. Files are the owner's alone. On SIGTERM and SIGINT: stop accepting, commit, stop the worker, exit 0.

use std::process::ExitCode;

use clap::Parser;
use flowstone_types::budget::allocator::CountingAllocator;

mod config;
mod data_dir;
mod descriptors;
mod log;
mod memory;
mod privacy;
mod process;
mod serve;

/// Counts what statements hold.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Keeps SQL views correct and fresh while the data under them changes.
#[derive(Debug, Parser)]
#[command(name = "flowstone", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs a node: everything in one process.
    Serve(config::Arguments),
}

fn main() -> ExitCode {
    memory::bound_what_is_kept();
    let Command::Serve(arguments) = Cli::parse().command;
    let outcome = config::Settings::load(arguments).and_then(serve::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be set up yet, and the terminal is where the user looks first.
            eprintln!("flowstone: {error:#}");
            ExitCode::FAILURE
        }
    }
}
