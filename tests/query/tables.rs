//! The tables are folds over the log: they show exactly what was recorded.

use crate::asking::{ask, ask_as, one_run, refusal, run, values};
use crate::synthetic::write;
use actrace::ErrorKind;
use actrace::sql::output::Format;
use insta::assert_snapshot;
use tempfile::tempdir;

#[test]
fn activations_have_a_row_for_each_token_of_each_point() {
    let folder = tempdir().unwrap();
    let sql = "SELECT label, step, phase, layer, point, ordinal, position, token_id, dtype, width, count, zero, \
               min, max, mean, std, rms, absmax, absmax_index, l1, l2, data FROM activations ORDER BY ordinal, position";
    assert_snapshot!(ask_as(sql, &[one_run(folder.path())], Format::Table).0.unwrap());
}

#[test]
fn small_tables_show_the_records() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let runs = "SELECT run, label, kind, model, format, weight_type, status, steps, rows, tokens, started, finished, prompt FROM runs";
    let steps =
        "SELECT label, step, phase, first_position, token_ids, next_token, logits_fingerprint, elapsed_ms FROM steps";
    let coverage = "SELECT layer, point, status, reason, rows_expected, rows_captured, rows_with_tensor FROM coverage";
    let events = "SELECT seq, kind, version, step FROM events ORDER BY seq";
    let tensors = "SELECT layer, point, rows, first_position, last_position, shape, count, mean, std FROM tensors ORDER BY ordinal";
    let tables = [runs, steps, coverage, events, tensors].map(|sql| ask_as(sql, &path, Format::Table).0.unwrap());
    assert_snapshot!(tables.join("\n"));
}

#[test]
fn elements_are_the_recorded_values() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let sql = "SELECT index, value FROM elements WHERE layer = 1 AND position = 2 ORDER BY index";
    let expected: String =
        values(1, "ffn_act", 2).iter().enumerate().map(|(i, value)| format!("{i},{value}\n")).collect();
    assert_eq!(ask(sql, &path), format!("index,value\n{expected}"));
    // 3 tokens of 3 points with 4 elements and of the logits with 6.
    assert_eq!(ask("SELECT count(*) AS n FROM elements", &path), "n\n54\n");
}

#[test]
fn tensor_statistics_are_those_of_all_rows_together() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let all: Vec<f64> = (0..3).flat_map(|p| values(1, "ffn_act", p)).map(f64::from).collect();
    let mean = all.iter().sum::<f64>() / 12.0;
    let std = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 12.0).sqrt();
    let answer = ask("SELECT mean, std FROM tensors WHERE layer = 1", &path);
    let numbers: Vec<f64> = answer.lines().nth(1).unwrap().split(',').map(|x| x.parse().unwrap()).collect();
    // A dozen operations on numbers of like size.
    let near = |a: f64, b: f64| (a - b).abs() <= 16.0 * f64::EPSILON * b.abs();
    assert!(near(numbers[0], mean) && near(numbers[1], std), "{numbers:?} {mean} {std}");
}

/// An imported run has the points of its dump; of logits that were not dumped nothing is known.
#[test]
fn an_imported_run_shows_what_was_dumped_and_nothing_else() {
    let folder = tempdir().unwrap();
    let (dump, out) = (folder.path().join("dump.safetensors"), folder.path().join("runs.actrace"));
    let header = r#"{"00.ffn_act":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let values: Vec<u8> = [1.0f32, -2.0, 0.5, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(&dump, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()).unwrap();
    let mut import = std::process::Command::new(env!("CARGO_BIN_EXE_actrace"));
    import.arg("import").arg(&dump).args(["--map", "hf", "--tokens", "7,8", "--label", "theirs", "--out"]).arg(&out);
    let imported = import.output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let path = [out];
    let answer = |sql| ask(sql, &path);
    assert_eq!(answer("SELECT label, kind FROM runs"), "label,kind\ntheirs,import\n");
    let steps = answer("SELECT next_token IS NULL AS t, logits_fingerprint IS NULL AS f FROM steps");
    assert_eq!(steps, "t,f\ntrue,true\n");
    let elements = answer("SELECT position, value FROM elements WHERE point = 'ffn_act' ORDER BY position, index");
    assert_eq!(elements, "position,value\n0,1\n0,-2\n1,0.5\n1,4\n");
    let coverage = answer("SELECT status, reason FROM coverage WHERE point = 'ffn_out'");
    assert_eq!(coverage, "status,reason\nunsupported,not in the dump\n");
}

#[test]
fn what_is_not_there_is_null_and_never_zero() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("n.actrace");
    let nonfinite = |_: i32, _: &str, position: u32| match position {
        0 => vec![f32::NAN, f32::INFINITY],
        _ => vec![f32::NEG_INFINITY, 2.0],
    };
    let mut run = run("n", &[1, 2], &nonfinite);
    run.tensors = false;
    run.sites = vec![(0, "ffn_act")];
    write(&path, &[run], true);
    let sql = "SELECT nan, pos_inf, neg_inf, min, max, mean, std, rms, absmax, absmax_index, l2, data \
               FROM activations ORDER BY position";
    let expected = "nan,pos_inf,neg_inf,min,max,mean,std,rms,absmax,absmax_index,l2,data\n\
                    1,1,0,,,,,,,,,\n0,0,1,2,2,2,0,2,2,1,2,\n";
    assert_eq!(ask(sql, std::slice::from_ref(&path)), expected);
    assert_eq!(ask("SELECT count(*) AS n FROM elements", &[path]), "n\n0\n");
}

#[test]
fn filters_on_any_cheap_column_give_what_filtering_afterwards_gives() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let filters = [
        "point = 'ffn_act'",
        "point <> 'ffn_act' AND position BETWEEN 1 AND 1",
        "layer IS NULL",
        "layer >= 1 OR token_id = 5",
        "label = 'a' AND step = 0 AND phase = 'prefill'",
        "step > 0",
        "position > 100",
        "absmax > 3.5",
        "point IN ('embed', 'logits') AND std > 0.5",
        "data[1] > 1.0",
        "mean > (SELECT avg(mean) FROM activations)",
    ];
    for filter in filters {
        // A volatile condition that always holds keeps the second filter out of the scan.
        let late = format!("CASE WHEN random() >= 0.0 THEN {filter} END");
        let sql = |filter: &str| {
            let sql = format!("SELECT ordinal, position FROM activations WHERE {filter} ORDER BY ordinal, position");
            ask(&sql, &path)
        };
        assert_eq!(sql(filter), sql(&late), "{filter}");
    }
}

#[test]
fn a_scan_leaves_out_units_that_cannot_match() {
    let folder = tempdir().unwrap();
    let (a, b) = (folder.path().join("a.actrace"), folder.path().join("b.actrace"));
    write(&a, &[run("a", &[1, 2], &values)], true);
    write(&b, &[run("b", &[1, 2], &values)], true);
    let units = |filter: &str| {
        let plan = ask(&format!("EXPLAIN SELECT mean FROM activations WHERE {filter}"), &[a.clone(), b.clone()]);
        plan.split("units=").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
    };
    assert_eq!(units("mean > 0"), "2");
    assert_eq!(units("label = 'b'"), "1");
    assert_eq!(units("label LIKE 'b%' AND layer < 7"), "1");
    assert_eq!(units("layer = 9"), "0");
    assert_eq!(units("position > 5"), "0");
    assert_eq!(units("step = 1"), "0");
}

#[test]
fn limits_stop_early() {
    let folder = tempdir().unwrap();
    let answer = ask("SELECT point FROM activations LIMIT 2", &[one_run(folder.path())]);
    assert_eq!(answer.lines().count(), 3);
}

#[test]
fn unknown_names_suggest_the_near_one() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let said = |sql: &str| {
        let error = refusal(sql, &path);
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        error.to_string()
    };
    assert_eq!(said("SELECT * FROM activation"), "unknown table `activation`; did you mean `activations`?");
    assert_eq!(said("SELECT absmx FROM activations"), "unknown column `absmx`; did you mean `absmax`?");
    assert!(said("SELECT 1 FROM activations WHERE point = 'ffn_ac'").ends_with("did you mean `ffn_act`?"));
    assert!(said("SELECT 1 FROM activations WHERE 'logit' = point").ends_with("did you mean `logits`?"));
    assert!(said("SELECT 1 FROM coverage WHERE point IN ('ffn_act', 'logitss')").ends_with("did you mean `logits`?"));
    assert!(!said("SELECT FROM WHERE").contains('\n'));
}

#[test]
fn sql_only_reads() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let target = folder.path().join("out.csv");
    let target = target.display();
    let statements = [
        format!("COPY runs TO '{target}' STORED AS CSV"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{target}'"),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "DROP TABLE runs".to_owned(),
        "INSERT INTO runs SELECT * FROM runs".to_owned(),
        "DELETE FROM runs".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        format!("EXPLAIN ANALYZE COPY runs TO '{target}' STORED AS CSV"),
        format!("SELECT * FROM '{target}'"),
    ];
    for statement in statements {
        assert_eq!(refusal(&statement, &path).kind(), ErrorKind::Usage, "{statement}");
    }
    assert!(refusal("DROP TABLE runs", &path).to_string().starts_with("SQL here only reads"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_run_in_two_files_is_refused() {
    let folder = tempdir().unwrap();
    let path = one_run(folder.path());
    let copy = folder.path().join("copy.actrace");
    std::fs::copy(&path, &copy).unwrap();
    let error = actrace::open::TraceSet::open(&[path, copy]).unwrap_err();
    assert!(error.to_string().contains("name one of the two files"), "{error}");
}

#[test]
fn runs_are_found_by_label_and_by_the_first_digits_of_their_id() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.actrace");
    write(&path, &[run("left", &[1], &values), run("right", &[1], &values)], true);
    let set = actrace::open::TraceSet::open(&[path]).unwrap();
    let right = set.resolve("right").unwrap().id();
    assert_eq!(set.resolve(&right[..8]).unwrap().id(), right);
    assert!(set.resolve("rigt").unwrap_err().to_string().ends_with("did you mean `right`?"));
}
