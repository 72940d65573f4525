//! What a comparison means for the answer, as lines and as an object.

use crate::compare::{Answer, AnswerRow, AnswerStep};
use crate::report::number;
use serde_json::{Value, json};

/// Steps that the page shows.
const SHOWN: usize = 10;

/// A line for each thing that is known; nothing where nothing is.
pub(super) fn text(answer: &Answer) -> String {
    let mut text = String::new();
    if let Some((first, last)) = answer.prefill_against_decode.first().zip(answer.prefill_against_decode.last()) {
        let count = answer.prefill_against_decode.len();
        text += &format!("prefill against decode: {count} positions, {first} to {last}\n");
    }
    let same = answer.rows.iter().all(|row| row.kl_divergence == 0.0 && row.top1_equal());
    if same && !answer.rows.is_empty() {
        text += &format!("answer: {} rows of logits, KL divergence 0, no greedy choice flips\n", answer.rows.len());
    } else if let (Some(last), Some(mean), Some(most)) = (answer.last(), answer.kl_mean(), answer.kl_max()) {
        text += &format!("answer: {} rows of logits, KL divergence in nats\n", answer.rows.len());
        text += &format!("  last row: {}\n", row_text(last));
        text += &format!("  mean KL {mean:.2e}, largest {:.2e} at position {}\n", most.kl_divergence, most.position);
        text += &flips_text(answer);
    }
    if answer.unknown_rows > 0 {
        let rows = answer.unknown_rows;
        text += &format!("answer: {rows} rows of logits differ, and have no finite values here to say by how much\n");
    }
    text += &choices_text(answer);
    let steps = answer.steps();
    if steps.len() > 1 && !same { text + &steps_text(&steps) } else { text }
}

fn row_text(row: &AnswerRow) -> String {
    let gap = |gap: Option<f64>| gap.map_or_else(|| "-".to_owned(), |gap| format!("{gap:.3}"));
    format!(
        "position {}, KL {:.2e}, the reference's choice has rank {} in the target, lead of the first over the second {} against {}",
        row.position,
        row.kl_divergence,
        row.rank,
        gap(row.reference_gap),
        gap(row.target_gap)
    )
}

fn flips_text(answer: &Answer) -> String {
    let mut flips = answer.flips();
    match flips.next() {
        None => "  no greedy choice flips\n".to_owned(),
        Some(first) => {
            let count = 1 + flips.count();
            format!("  {count} greedy choices flip, first in step {}: {}\n", first.target_step, row_text(first))
        }
    }
}

fn choices_text(answer: &Answer) -> String {
    match answer.first_other_choice {
        None if answer.choices == 0 => String::new(),
        None => format!("tokens: {} chosen after equal tokens, none differs\n", answer.choices),
        Some(chosen) => format!(
            "tokens: the runs part in step {} (of the reference {}): after position {} one chose {}, the other {}\n",
            chosen.target_step, chosen.reference_step, chosen.position, chosen.reference, chosen.target
        ),
    }
}

fn steps_text(steps: &[AnswerStep]) -> String {
    let mut text = String::from("step  rows   largest KL  KL of the last  flips\n");
    for step in steps.iter().take(SHOWN) {
        let last = step.last.kl_divergence;
        text +=
            &format!("{:>4}  {:>4}  {:>11.2e}  {last:>14.2e}  {:>5}\n", step.step, step.rows, step.kl_max, step.flips);
    }
    match steps.len().saturating_sub(SHOWN) {
        0 => text,
        more => text + &format!("and {more} steps more, with --format json\n"),
    }
}

/// The answer as an object.
pub(super) fn json(answer: &Answer) -> Value {
    let steps = answer.steps().into_iter().map(|step| {
        json!({
            "step": step.step,
            "rows": step.rows,
            "kl_max": number(Some(step.kl_max)),
            "flips": step.flips,
            "last": row_json(&step.last),
        })
    });
    json!({
        "rows": answer.rows.len(),
        "unknown_rows": answer.unknown_rows,
        "last": answer.last().map(row_json),
        "kl_mean": number(answer.kl_mean()),
        "kl_max": answer.kl_max().map(row_json),
        "worst_rank": answer.worst_rank().map(row_json),
        "flips": answer.flips().count(),
        "first_flip": answer.flips().next().map(row_json),
        "choices": answer.choices,
        "first_other_choice": answer.first_other_choice.map(|chosen| json!({
            "position": chosen.position,
            "reference_step": chosen.reference_step,
            "target_step": chosen.target_step,
            "reference": chosen.reference,
            "target": chosen.target,
        })),
        "prefill_against_decode": answer.prefill_against_decode,
        "steps": steps.collect::<Vec<_>>(),
    })
}

fn row_json(row: &AnswerRow) -> Value {
    json!({
        "position": row.position,
        "reference_step": row.reference_step,
        "target_step": row.target_step,
        "kl_divergence": number(Some(row.kl_divergence)),
        "rank": row.rank,
        "top1_equal": row.top1_equal(),
        "reference_gap": number(row.reference_gap),
        "target_gap": number(row.target_gap),
    })
}
