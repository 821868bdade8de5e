//! `stanchion doctor`: looks at everything that an instance keeps on this machine, and says what is wrong and what to
//! do about it. It changes nothing, and works while the server runs and while it does not.

mod certificates;
mod etcd;
mod images;
mod ledger;
mod leftovers;
mod machine;
mod mounts;

use crate::config::{DataDir, Flags as UpFlags, Settings};
use anyhow::{Result, bail};

/// What a check saw.
pub(super) enum Finding {
    Fine(String),
    /// Nothing is broken, but it is good to know.
    Note(String),
    Wrong {
        what: String,
        /// What to do.
        remedy: String,
    },
}

impl Finding {
    fn wrong(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::Wrong { what: what.into(), remedy: remedy.into() }
    }
}

type Check = fn(&Settings) -> Result<Vec<Finding>>;

/// Which check is another one where objects are in an etcd.
const LEDGER: &str = "ledger";

/// Every check, in the order in which they are told.
const CHECKS: [(&str, Check); 6] = [
    (LEDGER, ledger::check),
    ("certificates", certificates::check),
    ("images", images::check),
    ("mounts", mounts::check),
    ("leftovers", leftovers::check),
    ("machine", machine::check),
];

pub(crate) fn run(data: &DataDir) -> Result<()> {
    let recalled = UpFlags::recall(data)?;
    let settings = recalled.settle()?;
    let mut wrong = 0;
    for (name, check) in CHECKS {
        let findings = match name {
            LEDGER if recalled.store.is_shared() => etcd::check(&recalled.store),
            _ => check(&settings),
        };
        let findings = findings.unwrap_or_else(|error| {
            let what = format!("cannot be looked at: {}", stdx::one_line(error.as_ref()));
            vec![Finding::wrong(what, "make that possible, then look again")]
        });
        for finding in findings {
            match finding {
                Finding::Fine(what) => println!("fine   {name}: {what}"),
                Finding::Note(what) => println!("note   {name}: {what}"),
                Finding::Wrong { what, remedy } => {
                    wrong += 1;
                    println!("wrong  {name}: {what}\n       what to do: {remedy}");
                }
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => bail!("examine {}: 1 thing is wrong", settings.data_dir.display()),
        _ => bail!("examine {}: {wrong} things are wrong", settings.data_dir.display()),
    }
}
