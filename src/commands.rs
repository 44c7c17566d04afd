//! Runs the programs that check children, each for its time at most, and says how they ended.

use std::process::Stdio;

use tokio::process;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::control::health::{Command, RunId};

/// How a run has ended: well, or how.
pub type Done = (RunId, Result<(), String>);

/// The programs under way. The checks limit how many there are.
pub struct Commands {
    done: UnboundedSender<Done>,
}

impl Commands {
    /// None, and where their ends will be told.
    pub fn new() -> (Commands, UnboundedReceiver<Done>) {
        let (done, receiver) = unbounded_channel();
        (Commands { done }, receiver)
    }

    /// Starts a program; it is killed when its time is over.
    pub fn start(&self, command: Command) {
        let done = self.done.clone();
        tokio::spawn(async move {
            let run = command.run;
            // Nobody waits for it any more when the router stops.
            let _ = done.send((run, end(command).await));
        });
    }
}

async fn end(command: Command) -> Result<(), String> {
    let Command { words, environment, timeout: time, .. } = command;
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let mut process = process::Command::new(program);
    process.args(arguments).envs(environment).kill_on_drop(true);
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match timeout(time, process.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program} cannot be started: {error}")),
        Err(_) => Err(format!("{program} did not end in {time:?}")),
    }
}
