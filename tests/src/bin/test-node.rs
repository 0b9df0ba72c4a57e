//! The program `drillbit`, as the tests start it: another package's binary is out of their reach.
//!
//! A node (`serve`) ends with its stdin, so that none outlives the tests however they end.

use std::io::{self, Read};
use std::process::{ExitCode, exit};
use std::thread;

fn main() -> ExitCode {
    if std::env::args()
        .nth(1)
        .is_some_and(|command| command == "serve")
    {
        thread::spawn(|| {
            // An error is an end as well.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            exit(0);
        });
    }
    drillbit::cli::run(std::env::args_os())
}
