//! How often what was written is handed to stable storage.

use crate::error::Error;
use std::str::FromStr;
use std::time::Duration;

/// When a writer syncs between a file's creation and its seal, and so what a power loss may take.
///
/// At every level: whole frames survive the death of the process (they are the kernel's as soon as they are written);
/// a file and its folder entry are synced when the file is created; a sealed file is synced, so a recording that ended
/// well survives a power loss entirely. "Survives" means what storage that honours a flush keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Never in between: a power loss may take the whole unfinished run, never a run that was sealed before.
    None,
    /// After every finished step: a power loss takes at most the step that was under way. One sync a step.
    Step,
    /// When what is unsynced has waited this long: a power loss takes at most what was written within that time (and
    /// while a sync was under way). Steps and large frames in between cost nothing. A file is synced beside the writing,
    /// one sync at a time: where the next is due before the last is done, the writing waits. Of 64 MiB a sync begins
    /// before its time, so that a disk has something to do from the start.
    Every(Duration),
}

impl Default for Durability {
    /// Once a second, and more often only where much is written: whatever the length of a step, recording waits for no disk
    /// that keeps up with it, and a power loss takes a second or so of a run that may have lasted hours.
    fn default() -> Self {
        Durability::Every(Duration::from_secs(1))
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Durability::None),
            "step" => Ok(Durability::Step),
            number => match number.parse() {
                Ok(0) | Err(_) => Err(Error::usage(format!(
                    "`{number}` is no durability level: none, step or a number of milliseconds from 1 on"
                ))),
                Ok(milliseconds) => Ok(Durability::Every(Duration::from_millis(milliseconds))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_two_words_and_milliseconds() {
        assert_eq!("none".parse::<Durability>().unwrap(), Durability::None);
        assert_eq!("step".parse::<Durability>().unwrap(), Durability::Step);
        assert_eq!("250".parse::<Durability>().unwrap(), Durability::Every(Duration::from_millis(250)));
        for wrong in ["0", "-1", "1.5", "steps", "", "99999999999999999999999"] {
            let error = wrong.parse::<Durability>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")) && error.contains("milliseconds"), "{error}");
        }
    }
}
