//! Functions over tensors: over lists and over references alike, and what they refuse.

use crate::asking::{ask, one_run, refusal, run, values};
use crate::synthetic::{Run, write};
use actrace::ErrorKind;
use actrace::sql::output::Format;
use std::path::PathBuf;
use tempfile::{TempDir, tempdir};

/// The answer to `SELECT expression`, without a trace.
fn value(expression: &str) -> String {
    let answer = ask(&format!("SELECT {expression} AS v"), &[]);
    answer.strip_prefix("v\n").unwrap().trim_end().to_owned()
}

/// Runs `a` and `b`; every value of `b` is larger by an eighth.
fn two_runs() -> (TempDir, [PathBuf; 1]) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let shifted = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        values(layer, point, position).iter().map(|value| value + 0.125).collect()
    };
    write(&path, &[run("a", &[5, 6, 7], &values), run("b", &[5, 6, 7], &shifted)], true);
    (folder, [path])
}

const PAIRS: &str = "FROM activations a JOIN activations b USING (point, layer, position)
    WHERE a.label = 'a' AND b.label = 'b' ORDER BY a.ordinal, position";

#[test]
fn numbers_follow_from_the_definitions() {
    // r = (3, 4), t = (3, 5), e = (0, 1).
    assert_eq!(value("rel_l2([3, 4], [3, 5])"), "0.2");
    assert_eq!(value("max_abs_diff([3, 4], [3, 5])"), "1");
    assert_eq!(value("max_abs_diff_index([3, 4], [3, 5])"), "1");
    assert_eq!(value("mismatches([3, 4], [3, 5], 0, 0.3)"), "0");
    assert_eq!(value("mismatches([3, 4], [3, 5])"), "1");
    assert_eq!(value("at([3, 4], 1)"), "4");
    assert_eq!(value("at([3, 4], 2)"), "", "there is none");
}

/// 2^24 + 1 and 2^24 + 3 lie between two f32 numbers, and go to the even one.
#[test]
fn sums_and_products_are_those_of_f32() {
    let single = |list: &str| format!("arrow_cast({list}, 'List(Float32)')");
    let (large, small) = (single("[16777216, 16777216]"), single("[1, 3]"));
    assert_eq!(value(&format!("add({large}, {small})")), "\"[16777216,16777220]\"");
    assert_eq!(value(&format!("multiply({}, {})", single("[0.1]"), single("[3]"))), "[0.3]");
    assert_eq!(value(&format!("at(multiply({0}, {0}), 0) = 0.1 * 0.1", single("[0.1]"))), "false");
}

#[test]
fn a_tensor_has_only_parts_that_divide_it() {
    let error = refusal("SELECT rms_normed([1.0, 2.0, 3.0], 2, 0)", &[]);
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Usage, "rms_normed: 3 elements have no 2 equal parts")
    );
}

#[test]
fn f64_is_not_rounded_to_f32_and_other_lists_are_tensors_too() {
    assert_eq!(value("max_abs_diff([1.0], [1.0 + 1e-12]) > 0"), "true");
    assert_eq!(value("max_abs_diff(arrow_cast([1.5, 2], 'List(Float32)'), [1.5, 2.25])"), "0.25");
    for kind in ["LargeList(Float32)", "FixedSizeList(2, Float64)", "List(Float16)", "List(Int8)"] {
        assert_eq!(value(&format!("max_abs_diff(arrow_cast([1, 2], '{kind}'), [1, 3])")), "1", "{kind}");
    }
}

#[test]
fn references_give_what_lists_give() {
    let (_folder, path) = two_runs();
    let by = |column: &str| {
        let columns = ["rel_l2", "cosine", "ulp_p99", "top1_equal"]
            .map(|name| format!("{name}(a.{column}, b.{column}) AS {name}"))
            .join(", ");
        ask(&format!("SELECT point, position, {columns}, at(b.{column}, 3) {PAIRS}"), &path)
    };
    let (lists, references) = (by("data"), by("tensor"));
    assert_eq!(lists.lines().count(), 1 + 6, "layers are joined, and what stands outside them is not");
    assert_eq!(lists.replace("b.data", "b.tensor"), references);
}

#[test]
fn a_reference_names_file_payload_and_row_where_a_tensor_was_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let kept = run("a", &[5, 6, 7], &values);
    write(&path, &[kept, Run { tensors: false, ..run("b", &[5, 6, 7], &values) }], true);
    let sql = "SELECT label, tensor, rel_l2(tensor, tensor) AS error FROM activations
        WHERE point = 'embed' AND position > 0 ORDER BY label, position";
    let file = "07".repeat(16);
    let expected = format!("label,tensor,error\na,{file}/1/1,0\na,{file}/1/2,0\nb,,\nb,,\n");
    assert_eq!(ask(sql, &[path]), expected);
}

#[test]
fn a_filter_by_a_function_of_references_decodes_only_what_passes_the_others() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let read = |sql: &str| {
        let (answer, session) = crate::asking::ask_as(sql, &path, Format::Csv);
        (answer.unwrap(), session.set().traces()[0].bytes_read().0)
    };
    let (answer, some) = read("SELECT position FROM activations WHERE layer = 1 AND at(tensor, 0) = 12");
    assert_eq!(answer, "position\n2\n");
    let (_, all) = read("SELECT position FROM activations WHERE at(tensor, 0) = 12");
    assert!(some > 0 && some * 3 < all, "{some} of {all}");
}

#[test]
fn unequal_lengths_are_not_compared() {
    let refused = refusal("SELECT rel_l2([1, 2], [1, 2, 3])", &[]);
    assert_eq!(refused.to_string(), "rel_l2: one tensor has 2 elements, the other 3");
    assert_eq!(refused.kind(), ErrorKind::NotComparable);
    for ratio in ["ratio_std", "ratio_rms", "ratio_absmax"] {
        let refused = refusal(&format!("SELECT {ratio}([1, 2], [1, 2, 3])"), &[]);
        assert_eq!(refused.to_string(), format!("{ratio}: one tensor has 2 elements, the other 3"));
    }
}

#[test]
fn nonfinite_on_one_side_is_null_and_on_both_is_left_out() {
    for metric in
        ["rel_l2", "cosine", "p50_abs_diff", "ulp_max", "ulp_p99", "max_abs_diff_index", "error_l2", "reference_l2"]
    {
        assert_eq!(value(&format!("{metric}([1, 'NaN'::double], [2, 2])")), "", "{metric}");
        assert_eq!(value(&format!("{metric}([1, 2], [2, -'Infinity'::double])")), "", "{metric}");
    }
    assert_eq!(value("rel_l2([1, 'NaN'::double], [2, 'NaN'::double])"), "1");
    assert_eq!(value("mismatches([1, 'NaN'::double], [1, 2])"), "1");
}

#[test]
fn null_is_not_captured_and_gives_null() {
    assert_eq!(value("rel_l2(NULL, [1, 2])"), "");
    assert_eq!(value("at([1, 2], NULL)"), "");
    let refused = refusal("SELECT rel_l2([1, NULL], [1, 2])", &[]).to_string();
    assert_eq!(refused, "element 1 of a list is NULL, which is no value of a tensor");
}

#[test]
fn slips_in_arguments_are_named() {
    let said = |sql: &str| refusal(sql, &[]).to_string();
    assert_eq!(said("SELECT rel_l2([1])"), "rel_l2(a, b): it is given 1 arguments");
    assert!(
        said("SELECT mismatches([1], [1], 3)").starts_with("mismatches(a, b [, atol, rtol]): it is given 3 arguments")
    );
    assert!(said("SELECT rel_l2(1, [1])").contains("rel_l2(a, b): Int64 is no tensor"));
    assert!(said("SELECT at([1], 'x')").contains("at(a, i): Utf8 is no number"));
    assert_eq!(said("SELECT at([1], -1)"), "at: i is -1, which is no whole number from 0");
    assert_eq!(said("SELECT mismatches([1], [1], -1, 0)"), "mismatches: a tolerance is 0 or more");
    assert!(said("SELECT at('ffn_out', 0)").starts_with("`ffn_out` is no reference to a tensor"));
}

#[test]
fn a_reference_into_a_file_that_is_not_open_is_refused_by_its_identity() {
    let folder = tempdir().unwrap();
    let path = one_run(folder.path());
    let foreign = format!("{}/1/0", "ab".repeat(16));
    let refused = refusal(&format!("SELECT at('{foreign}', 0)"), std::slice::from_ref(&path)).to_string();
    assert_eq!(refused, format!("{foreign} is a tensor of file {}, which is not open here", "ab".repeat(16)));
    let missing = refusal(&format!("SELECT at('{}/1/9', 0)", "07".repeat(16)), &[path]);
    assert_eq!(missing.kind(), ErrorKind::Damaged, "{missing}");
}

#[test]
fn a_reference_that_two_open_files_may_mean_is_refused() {
    let folder = tempdir().unwrap();
    let other = folder.path().join("b.actrace");
    write(&other, &[run("b", &[5, 6, 7], &values)], true);
    let refused = refusal("SELECT at(tensor, 0) FROM activations", &[one_run(folder.path()), other]).to_string();
    assert!(refused.contains("may be a tensor of two files with the identity 0707"), "{refused}");
}

#[test]
fn statistics_of_a_tensor_are_the_columns_of_its_row() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let columns = ask("SELECT * FROM activations LIMIT 0", &path);
    let columns: Vec<&str> = columns.trim().split(',').collect();
    let names = actrace::stats::STATISTICS.iter().map(|(name, _)| *name);
    let shared: Vec<&str> = names.filter(|name| columns.contains(name)).collect();
    assert_eq!(shared.len(), 19, "{shared:?}");
    for name in shared {
        let sql = format!(
            "SELECT count(*) AS rows, count(*) FILTER (WHERE (statistics(tensor)['{name}'] IS NOT DISTINCT FROM {name})
                 AND (tensor_{name}(data) IS NOT DISTINCT FROM {name})) AS equal FROM activations"
        );
        assert_eq!(ask(&sql, &path), "rows,equal\n12,12\n", "{name}");
    }
}

#[test]
fn a_channel_is_one_element_of_every_row_in_order() {
    let (_folder, path) = two_runs();
    let of = |order: &str| {
        let sql = format!(
            "SELECT layer, channel(tensor, 2 ORDER BY {order}) AS v FROM activations
             WHERE label = 'a' AND point = 'ffn_act' GROUP BY layer ORDER BY layer"
        );
        ask(&sql, &path)
    };
    assert_eq!(of("position"), "layer,v\n0,\"[-0.5,0.5,1.5]\"\n1,\"[9.5,10.5,11.5]\"\n");
    assert_eq!(of("position DESC"), "layer,v\n0,\"[1.5,0.5,-0.5]\"\n1,\"[11.5,10.5,9.5]\"\n");
    let sql = "SELECT a.layer, max_abs_diff(channel(a.tensor, 2 ORDER BY position), channel(b.data, 2 ORDER BY position)) AS v
        FROM activations a JOIN activations b USING (point, layer, position)
        WHERE a.label = 'a' AND b.label = 'b' GROUP BY a.layer ORDER BY a.layer";
    assert_eq!(ask(sql, &path), "layer,v\n0,0.125\n1,0.125\n");
}

#[test]
fn a_channel_without_an_order_or_with_a_hole_is_refused() {
    let (_folder, path) = two_runs();
    let said = |sql: &str| refusal(sql, &path).to_string();
    let unordered = said("SELECT channel(tensor, 2) FROM activations");
    assert!(
        unordered.contains("channel(a, i ORDER BY position): rows without an order make no channel"),
        "{unordered}"
    );
    let window = said("SELECT channel(tensor, 2) OVER (ORDER BY position) FROM activations");
    assert!(window.contains("channel(a, i ORDER BY position): it is no window function"), "{window}");
    let hole = said("SELECT tensor_mean(channel(tensor, 5 ORDER BY ordinal, position)) FROM activations");
    assert_eq!(hole, "element 0 of a list is NULL, which is no value of a tensor");
}

#[test]
fn ranges_of_distributions_are_checked() {
    let said = |sql: &str| refusal(sql, &[]).to_string();
    assert_eq!(said("SELECT percentile([1], 101)"), "percentile: p is a percentage, 0 to 100");
    assert_eq!(said("SELECT histogram([1], 0)"), "histogram: bins is 1 to 1024");
    assert_eq!(said("SELECT histogram([1], 1025)"), "histogram: bins is 1 to 1024");
    assert_eq!(said("SELECT histogram([1], 2.5)"), "histogram: bins is 2.5, which is no whole number from 0");
    assert_eq!(said("SELECT histogram([1], 2, 3, 3)"), "histogram: low is below high, and both are finite");
    assert_eq!(value("histogram([-1.7e308, 1.7e308], 2)"), "", "the width is no number");
}

#[test]
fn sql_s_own_functions_keep_their_names() {
    let sql = "SELECT v, rank() OVER (ORDER BY v), mean(v) OVER (), max(v) OVER () FROM (VALUES (1.0), (3.0)) t(v) ORDER BY v";
    assert_eq!(ask(sql, &[]).lines().skip(1).collect::<Vec<_>>(), ["1,1,2,3", "3,2,2,3"]);
}

#[test]
fn structs_are_json_for_programs_and_short_for_people() {
    let sql = "SELECT topk([1.0, 4.0, 3.0], 2) AS v";
    let shown = |format| crate::asking::ask_as(sql, &[], format).0.unwrap();
    let expected = r#"[{"index":1,"value":4},{"index":2,"value":3}]"#;
    assert_eq!(shown(Format::Csv), format!("v\n\"{}\"\n", expected.replace('"', "\"\"")));
    assert!(shown(Format::Table).contains("[{index: 1, value: 4}, {index: 2, value: 3}]"), "{}", shown(Format::Table));
}
