//! The whole of a run: what is measured, in which order, where the results go.

use std::io::Write;
use std::path::Path;

use crate::args::{Args, Launch};
use crate::cases::{Case, Trial, state, transport};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::record::{self, Line, Recorder, Sample};
use crate::{compare, digest, document, launch, machine, peers, table};

/// Does what the arguments ask for; tables go to standard output.
pub fn run(args: &Args) -> Result<(), BenchError> {
    if let [before, after] = args.compare.as_slice() {
        let text = compare::text(&record::read(before)?, &record::read(after)?);
        return print(&text);
    }
    if !args.report.is_empty() {
        let mut lines = Vec::new();
        for path in &args.report {
            lines.extend(record::read(path)?);
        }
        if let Some(path) = &args.markdown {
            document::write(path, &lines)?;
        }
        if let Some(path) = &args.summary {
            digest::write(path, &lines)?;
        }
        return match (&args.markdown, &args.summary) {
            (None, None) => print(&table::text(&lines)),
            _ => Ok(()),
        };
    }
    if args.instances.iter().any(|&instances| instances < 2) {
        let text = "a fleet needs at least 2 instances: one asks for what another holds";
        return Err(BenchError::Usage(text.to_owned()));
    }
    measure(args)
}

fn measure(args: &Args) -> Result<(), BenchError> {
    let launches = launches(args)?;
    let plans: Vec<peers::Plan> = args
        .peers
        .iter()
        .map(|program| peers::plan(program))
        .collect::<Result<_, _>>()?;
    let mut recorder = Recorder::open(args.out.as_deref())?;
    recorder.record(Line::Run(machine::describe(versions(&args.notes))))?;

    let fleets = args.trials as usize * args.instances.len() * launches.len().max(1);
    let fleets = if args.only_peers { 0 } else { fleets };
    let singles: usize = plans.iter().map(|plan| plan.singles.len()).sum();
    let total = fleets + singles * args.trials as usize + usize::from(args.state_keys > 0);
    let mut progress = Progress::new(total as u64);
    for trial in 0..args.trials {
        for plan in &plans {
            for single in &plan.singles {
                progress.step(&format!(
                    "{}, {}, trial {trial}",
                    single.case, single.subject
                ));
                for value in peers::run(plan, single)? {
                    recorder.record(Line::Sample(Sample {
                        case: single.case.clone(),
                        subject: single.subject.clone(),
                        instances: 0,
                        trial,
                        value,
                    }))?;
                }
            }
        }
        if args.only_peers {
            continue;
        }
        for &instances in &args.instances {
            if args.cases.contains(&Case::Ingest) {
                alone(args, instances, trial, &mut recorder)?;
            }
            for launch in &launches {
                let name = launch.as_ref().map_or("attached", |launch| &launch.name);
                progress.step(&format!("{name}, {instances} instances, trial {trial}"));
                controller(args, launch.as_ref(), instances, trial, &mut recorder)?;
            }
        }
    }
    if args.state_keys > 0 {
        progress.step("kvatlas, kept state");
        kept_state(args, &mut recorder)?;
    }
    drop(progress);
    print(&table::text(&recorder.lines))
}

/// Every case against one fresh controller.
fn controller(
    args: &Args,
    launch: Option<&Launch>,
    instances: usize,
    trial: u32,
    recorder: &mut Recorder,
) -> Result<(), BenchError> {
    let (started, ports) = match (launch, args.attach) {
        (Some(launch), _) => {
            let started = launch::start(launch, "/controller/key-stats")?;
            let ports = started.ports;
            (Some(started), ports)
        }
        (None, Some(ports)) => (None, ports),
        (None, None) => return Err(BenchError::Usage("nothing to measure".to_owned())),
    };
    let subject = launch.map_or("attached", |launch| &launch.name);
    let mut context = Trial::begin(args, ports, started, instances)?;
    for case in &args.cases {
        for value in case.run(&mut context)? {
            recorder.record(Line::Sample(Sample {
                case: case.name().to_owned(),
                subject: subject.to_owned(),
                instances,
                trial,
                value,
            }))?;
        }
    }
    Ok(())
}

/// What the transport carries when nobody reads what arrives.
fn alone(
    args: &Args,
    instances: usize,
    trial: u32,
    recorder: &mut Recorder,
) -> Result<(), BenchError> {
    for value in transport::run(instances, args.operations)? {
        recorder.record(Line::Sample(Sample {
            case: transport::NAME.to_owned(),
            subject: transport::SUBJECT.to_owned(),
            instances,
            trial,
            value,
        }))?;
    }
    Ok(())
}

/// Journal, snapshot, restarts and a fleet that syncs: of this program, the others keep nothing.
fn kept_state(args: &Args, recorder: &mut Recorder) -> Result<(), BenchError> {
    let own = own()?;
    state::run(args, &own, &mut |case, trial, value| {
        recorder.record(Line::Sample(Sample {
            case: case.to_owned(),
            subject: own.name.clone(),
            instances: state::INSTANCES,
            trial,
            value,
        }))
    })
}

/// The controllers to start; `None` stands for one that runs already.
fn launches(args: &Args) -> Result<Vec<Option<Launch>>, BenchError> {
    if args.only_peers {
        return Ok(Vec::new());
    }
    if args.attach.is_some() {
        return Ok(vec![None]);
    }
    if !args.controllers.is_empty() {
        return Ok(args.controllers.iter().cloned().map(Some).collect());
    }
    Ok(vec![Some(own()?)])
}

/// This program as a controller.
fn own() -> Result<Launch, BenchError> {
    let own = std::env::current_exe()
        .map_err(|source| record::unusable(Path::new("/proc/self/exe"), source))?;
    Ok(Launch {
        name: "kvatlas".to_owned(),
        command: vec![own.to_string_lossy().into_owned()],
    })
}

/// What is measured: our own version, and what the caller knows of the others.
fn versions(notes: &[String]) -> Vec<(String, String)> {
    let own = (
        "kvatlas bench".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    );
    let note = |note: &String| {
        let (name, version) = note.split_once('=').unwrap_or((note, ""));
        (name.to_owned(), version.to_owned())
    };
    std::iter::once(own).chain(notes.iter().map(note)).collect()
}

fn print(text: &str) -> Result<(), BenchError> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
