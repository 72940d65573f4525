//! `actrace recover`: what is whole of a damaged trace, in a new file.

use super::identity::fill_random;
use super::space::bytes_text;
use super::{json, print};
use crate::error::Result;
use crate::file::FileHeader;
use crate::open::{Recovery, hex, recover};
use crate::recorder::now_us;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Copy everything whole of a torn or damaged trace into a new, sealed file
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace recover damaged.actrace recovered.actrace",
    after_help = "Exit status: 0 nothing was lost, 3 something was (each run concerned has a record of what and why), \
2 no trace, or OUT exists."
)]
pub struct Recover {
    /// The trace to read; it is not changed
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The file to write; it must not exist
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Recover {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let mut uuid = [0; 16];
        fill_random(&mut uuid)?;
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("recovering {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let recovered = recover(&self.from, &self.to, FileHeader { uuid, created_us: now_us() }, |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let found = recovered?;
        print(&if self.json { self.report(&found)? } else { self.text(&found) })?;
        Ok(if found.is_complete() { 0 } else { 3 })
    }

    fn text(&self, found: &Recovery) -> String {
        let bytes = bytes_text(found.verification.bytes);
        let mut text =
            format!("{}: sealed and verified, {bytes}\n  kind             kept      lost\n", self.to.display());
        let kinds: BTreeSet<&str> = found.kept.keys().chain(found.lost.keys()).copied().collect();
        let count = |frames: &BTreeMap<&str, u64>, kind| frames.get(kind).copied().unwrap_or(0);
        for kind in kinds {
            text += &format!("  {kind:14} {:>6} {:>9}\n", count(&found.kept, kind), count(&found.lost, kind));
        }
        for (start, end) in &found.holes {
            text += &format!("  bytes {start} to {end} of {} hold no whole frame\n", self.from.display());
        }
        if found.cut_bytes > 0 {
            text += &format!("  {} bytes at the end were the beginning of a frame\n", found.cut_bytes);
        }
        for (run, loss) in &found.losses {
            let place = run.map_or_else(|| "no run".to_owned(), |run| format!("run {run}"));
            text += &format!("  {place} lost {}, {} rows: {}\n", loss.what, loss.rows, loss.why);
        }
        if found.is_complete() {
            text += "  nothing that was recorded is lost\n";
        }
        text
    }

    fn report(&self, found: &Recovery) -> Result<String> {
        let losses: Vec<_> = found
            .losses
            .iter()
            .map(|(run, loss)| json!({ "run": run, "what": loss.what, "rows": loss.rows, "why": loss.why }))
            .collect();
        json(&json!({
            "from": self.from.display().to_string(),
            "to": self.to.display().to_string(),
            "complete": found.is_complete(),
            "kept": found.kept,
            "lost": found.lost,
            "losses": losses,
            "holes": found.holes,
            "cut_bytes": found.cut_bytes,
            "bytes": found.verification.bytes,
            "root": found.verification.root.map(|root| hex(&root)),
        }))
    }
}
