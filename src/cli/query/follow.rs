//! One answer, or with `--follow` one after the other until nothing more will come.

use super::output::{Output, Written};
use super::{Opening, block_on, note_state};
use crate::cli::{note, print};
use crate::error::Result;
use crate::open::{Follow, State, TraceSet};
use crate::sql::{Answer, Session};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two looks at the files.
const PAUSE: Duration = Duration::from_millis(500);

/// What a terminal takes for: erase everything, go to the upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Writes what `ask` answers over the files of `opening`, and gives what was written last.
pub fn answer(opening: &Opening, output: &Output, ask: impl AsyncFn(&Session) -> Result<Answer>) -> Result<Written> {
    let once = |set: TraceSet| {
        let session = opening.session(set)?;
        block_on(async { output.write(ask(&session).await?).await })
    };
    if output.follows() { answers(opening, once) } else { once(opening.open()?) }
}

fn answers(opening: &Opening, answer: impl Fn(TraceSet) -> Result<Written>) -> Result<Written> {
    let mut follow = Follow::new(&opening.files);
    let mut noted = Vec::new();
    let mut busy = Duration::ZERO;
    let mut set = follow.poll()?;
    if set.is_none() {
        note("note: there is no finished step yet: waiting for the first");
    }
    loop {
        let started = Instant::now();
        if let Some(set) = set.take() {
            note_news(&set, &mut noted);
            let over = set.is_over();
            if std::io::stdout().is_terminal() {
                print(CLEAR)?;
            }
            let written = answer(set)?;
            if over || written == Written::ReaderGone {
                return Ok(written);
            }
            busy = started.elapsed();
        }
        wait(busy);
        set = follow.poll()?;
    }
}

/// Waits for as long as the last answer took, if that is more than the usual pause: asking does not crowd out the
/// recording that it watches.
fn wait(busy: Duration) {
    std::thread::sleep(PAUSE.max(busy));
}

/// Says on stderr, once for each change, which files are not whole. That one has no seal yet is what is expected here.
fn note_news(set: &TraceSet, noted: &mut Vec<State>) {
    let states: Vec<State> = set.traces().iter().map(|trace| trace.state()).collect();
    for (file, trace) in set.traces().iter().enumerate() {
        if trace.state() != State::Torn && noted.get(file) != Some(&trace.state()) {
            note_state(trace);
        }
    }
    *noted = states;
}
