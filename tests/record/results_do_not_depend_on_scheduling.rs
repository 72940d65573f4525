//! Threads, chunks and observers change when something is computed, never what.

use crate::running::{Capture, capture, open, prompt, untraced};
use actrace::backend::{Captured, CpuBackend, Semantics};
use actrace::forward::{Forward, Observer, Request, StepReport, Wanted};
use actrace::graph::SiteId;
use actrace::model::Model;
use actrace::stats::row_fingerprint;
use std::ops::Range;

const STEPS: usize = 6;

fn forward(model: &Model, semantics: Semantics, threads: usize) -> Forward<CpuBackend> {
    Forward::new(model, CpuBackend::new(semantics, threads).unwrap()).unwrap()
}

/// The shipped prompt five times: long enough for several tiles, chunks and tasks.
fn long_prompt() -> Vec<u32> {
    prompt().repeat(5)
}

#[test]
fn threads_chunks_and_observers_leave_every_logits_row_as_it_is() {
    let tokens = long_prompt();
    for model_name in ["tiny-qwen2", "tiny-gpt2"] {
        for file in ["safetensors", "f16", "q8_0", "q4_k_m"] {
            let model = open(&format!("{model_name}.{file}"));
            for semantics in [Semantics::DequantizeF32, Semantics::Ggml] {
                let what = format!("{model_name} {file} {}", semantics.name());
                let (whole, expected) = capture(&mut forward(&model, semantics, 1), &tokens, STEPS);
                assert_eq!(expected.fingerprints.len(), STEPS, "{what}");
                let all = untraced(&mut forward(&model, semantics, 0), &tokens, STEPS);
                assert_eq!(all, expected, "{what}: all threads, untraced");
                // One token at a time, and chunks that end inside tiles.
                for bytes in [1, 7 * 2048 * 4] {
                    let mut chunked = forward(&model, semantics, 3).with_chunk_bytes(bytes);
                    assert_eq!(untraced(&mut chunked, &tokens, STEPS), expected, "{what}: chunks of {bytes}");
                    let (pieces, _) = capture(&mut chunked, &tokens, 0);
                    assert_same_prefill(&whole, &pieces, &what);
                }
            }
        }
    }
}

/// Every captured element of the prefill, bit for bit.
fn assert_same_prefill(whole: &Capture, pieces: &Capture, what: &str) {
    for (step, site) in whole.rows.keys().filter(|(step, _)| *step == 0) {
        assert!(pieces.rows[&(*step, *site)].len() > 1, "{what}: the prefill was not chunked");
        let (a, b) = (whole.values(0, *site), pieces.values(0, *site));
        let equal = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(equal, "{what}: site {site}");
    }
}

/// Wants one row of one site.
struct Peephole {
    site: SiteId,
    row: usize,
    seen: Vec<f32>,
}

impl Observer for Peephole {
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
        let row = self.row.wrapping_sub(positions.start);
        (site == self.site && row < positions.len()).then(|| Wanted { rows: row..row + 1, values: true })
    }
    fn capture(&mut self, _: u32, site: SiteId, first_position: usize, rows: Captured) -> actrace::Result<()> {
        assert_eq!((site, first_position, rows.rows()), (self.site, self.row, 1));
        self.seen = rows.land()?.values.unwrap().values().to_vec();
        Ok(())
    }
    fn step(&mut self, _: &StepReport) -> actrace::Result<()> {
        Ok(())
    }
}

/// Rows that nobody wants are not computed; the ones that are have the same bits.
#[test]
fn one_wanted_row_is_the_row_of_the_full_capture() {
    let tokens = long_prompt();
    let model = open("tiny-qwen2.q8_0");
    let mut forward = forward(&model, Semantics::Ggml, 2);
    let (full, expected) = capture(&mut forward, &tokens, 0);
    for site in forward.graph().sites.clone() {
        let mut peephole = Peephole { site: site.id, row: 37, seen: Vec::new() };
        let request = Request { tokens: &tokens, generate: 0, stop_at: &[] };
        let generation = forward.generate(&request, &mut peephole).unwrap();
        assert_eq!(generation, expected);
        assert_eq!(peephole.seen, full.rows[&(0, site.id)][0].row(37), "{}", site.point);
    }
}

#[test]
fn the_fingerprint_of_a_step_is_that_of_its_last_logits_row() {
    let model = open("tiny-gpt2.safetensors");
    let mut forward = forward(&model, Semantics::DequantizeF32, 2);
    let (capture, generation) = capture(&mut forward, &prompt(), 3);
    let logits = forward.graph().sites.last().unwrap().id;
    for (step, report) in (0..).zip(&capture.reports) {
        let rows = capture.rows[&(step, logits)].last().unwrap();
        assert_eq!(report.logits_fingerprint, row_fingerprint(rows.row(rows.len() - 1)));
        assert_eq!(report.next_token, generation.tokens[step as usize]);
    }
}
