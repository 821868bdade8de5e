//! `cargo xtask conformance`: runs the Kubernetes project's own e2e program against a fresh cluster.
//!
//! The program and the images that its specs start are built elsewhere and taken by path: nothing of them is in
//! this repository. Every result is printed by spec, and `--table FILE` carries it into a table of all specs.

mod cluster;
mod report;
mod shards;
mod table;

use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const USAGE: &str = "\
usage: cargo xtask conformance --e2e-test PROGRAM (--images DIR | --kubeconfig FILE)
         [--focus REGEX]… [--skip REGEX] [--processes N] [--results DIR] [--table FILE] [--binary STANCHION]
         [-- FLAG…]
       cargo xtask conformance --report FILE… --table FILE

  --e2e-test PROGRAM   e2e.test of Kubernetes 1.36
  --images DIR         archives to import, under the names that the specs use, into a fresh cluster
  --kubeconfig FILE    a cluster that runs already, instead of a fresh one
  --focus REGEX        only the specs whose full names match one of these
                       [default: StatefulSet, and the conformance specs of storage, access and pods]
  --skip REGEX         not the specs whose full names match
  --processes N        so many specs at a time, but those that say Serial or Disruptive alone, at the end [default: 4]
  --results DIR        where logs and reports go [default: a new directory]
  --table FILE         carry the results into the tables of this Markdown file
  --binary STANCHION   the server to test [default: a release build of this tree]
  --report FILE        results of an earlier run, instead of a run; as often as there are
  FLAG…                more flags of the program";

/// What this project is about.
const GROUPS: [&str; 4] = [
    r"\[sig-apps\] StatefulSet",
    r"\[sig-storage\].*\[Conformance\]",
    r"\[sig-auth\].*\[Conformance\]",
    r"\[sig-node\] (ConfigMap|Container Lifecycle Hook|Container Runtime|Downward API|InitContainer|Pods|Probing container|Projected|Secrets|Security Context).*\[Conformance\]",
];

/// Specs wait more than they work.
const PROCESSES: usize = 4;

/// What was said on the command line.
#[derive(Default)]
struct Wish {
    program: Option<PathBuf>,
    images: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    focus: Vec<String>,
    skip: Option<String>,
    processes: Option<usize>,
    results: Option<PathBuf>,
    table: Option<PathBuf>,
    binary: Option<PathBuf>,
    reports: Vec<PathBuf>,
    flags: Vec<String>,
}

/// How one spec ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) result: Ended,
    /// What the program said, in one line; empty where it passed.
    pub(crate) said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    Failed,
    /// The spec itself found that it does not apply.
    Skipped,
}

/// Every spec that ran, by its full name.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wish = Wish::parse(arguments)?;
    let mut outcomes = Outcomes::new();
    if wish.reports.is_empty() {
        outcomes = test(&wish)?;
    }
    for report in &wish.reports {
        outcomes.extend(report::read(report)?);
    }
    if let Some(path) = &wish.table {
        let text = fs::read_to_string(path).unwrap_or_default();
        fs::write(path, table::merge(&text, &outcomes))
            .with_context(|| format!("write {}", path.display()))?;
    }
    println!("{}", table::tally(outcomes.values().map(|it| it.result)));
    let failed = outcomes.values().filter(|it| it.result == Ended::Failed).count();
    ensure!(failed == 0, "{failed} specs failed");
    Ok(())
}

/// Runs the specs against one cluster.
fn test(wish: &Wish) -> Result<Outcomes> {
    let program = wish.program.as_ref().context(USAGE)?;
    ensure!(program.is_file(), "{} is not a program", program.display());
    let results = wish.results.clone().unwrap_or_else(|| {
        env::temp_dir().join(format!("stanchion-conformance-{}", std::process::id()))
    });
    fs::create_dir_all(&results).with_context(|| format!("make {}", results.display()))?;
    println!("logs and reports: {}", results.display());
    let cluster = match (&wish.kubeconfig, &wish.images) {
        (Some(kubeconfig), _) => Cluster::running(kubeconfig),
        (None, Some(images)) => {
            let binary = wish.binary.clone().map_or_else(cluster::build, Ok)?;
            Cluster::fresh(&binary, images, &results)?
        }
        (None, None) => bail!("{USAGE}"),
    };
    let focus = match &wish.focus[..] {
        [] => GROUPS.join("|"),
        given => given.join("|"),
    };
    let run = |specs: &str, place: &str, more: &[&str]| -> Result<Outcomes> {
        let place = results.join(place);
        start(wish, program, cluster.kubeconfig(), specs, &place, more)?;
        report::read(&place.join("report.json"))
    };
    let specs = run(&focus, "list", &["--ginkgo.dry-run"])?;
    let plan = shards::plan(specs.keys(), wish.processes.unwrap_or(PROCESSES));
    println!("{} specs, {} of them alone", specs.len(), plan.alone.len());
    let mut outcomes = Outcomes::new();
    let mut note = |found: Result<Outcomes>| -> Result<()> {
        let found = found?;
        report::print(&found);
        outcomes.extend(found);
        Ok(())
    };
    std::thread::scope(|scope| {
        let (run, shards) = (&run, plan.together.iter().enumerate());
        let started: Vec<_> = shards
            .map(|(number, specs)| {
                scope.spawn(move || run(&shards::regex(specs), &number.to_string(), &[]))
            })
            .collect();
        started.into_iter().try_for_each(|it| note(it.join().expect("runs do not panic")))
    })?;
    if !plan.alone.is_empty() {
        note(run(&shards::regex(&plan.alone), "alone", &[]))?;
    }
    Ok(outcomes)
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Wish> {
        let mut wish = Wish::default();
        let mut words = arguments.iter();
        while let Some(flag) = words.next() {
            let mut value =
                || words.next().cloned().with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--e2e-test" => wish.program = Some(value()?.into()),
                "--images" => wish.images = Some(value()?.into()),
                "--kubeconfig" => wish.kubeconfig = Some(value()?.into()),
                "--focus" => wish.focus.push(value()?),
                "--skip" => wish.skip = Some(value()?),
                "--processes" => wish.processes = Some(value()?.parse().context("--processes")?),
                "--results" => wish.results = Some(value()?.into()),
                "--table" => wish.table = Some(value()?.into()),
                "--binary" => wish.binary = Some(value()?.into()),
                "--report" => wish.reports.push(value()?.into()),
                "--" => wish.flags = words.by_ref().cloned().collect(),
                _ => bail!("{USAGE}"),
            }
        }
        Ok(wish)
    }
}

/// One run of the program. That specs failed is in its report; only a run without a report is an error.
fn start(
    wish: &Wish,
    program: &Path,
    kubeconfig: &Path,
    focus: &str,
    place: &Path,
    more: &[&str],
) -> Result<()> {
    fs::create_dir_all(place)?;
    let report = place.join("report.json");
    let log = fs::File::create(place.join("log"))?;
    let mut command = Command::new(program);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .args(["--provider=skeleton", "--num-nodes=1", "--ginkgo.no-color", "--disable-log-dump"]);
    if let Some(skip) = &wish.skip {
        command.arg(format!("--ginkgo.skip={skip}"));
    }
    command.args(more).args(&wish.flags);
    let status = command
        .current_dir(place)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(report.exists(), "{}: {status}, see {}/log", program.display(), place.display());
    Ok(())
}
