//! Ties a program's life to its parent's: the kernel kills it when the parent is gone, even by SIGKILL, so a killed
//! `carillon dev` leaves nothing behind. The tie outlives `exec`, which is how it reaches programs that are not ours.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Process id of the parent
    parent: i32,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn main(args: Args) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("the kernel refuses to tie this process")?;
    // The parent may have died before the tie was made: then nothing would ever end this process.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != args.parent) {
        bail!("the parent process is gone already");
    }
    let error = Command::new(&args.program).args(args.arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", args.program.display()))
}
