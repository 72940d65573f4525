-- question: How does the error of a run grow along the residual stream, and how much of it does each block bring in?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- columns: ordinal (forward order), layer, point, from_layer, from_point (the place before it in the stream), rows (on equal positions and tokens, both places captured), undecided (rows that differ at one of both places, and a side kept no tensor), disagreeing (elements that are nonfinite on one side only, or in different ways), rel_l2_in (at the place before), rel_l2_out (here), gain (of a relative error: how much of rel_l2_in the block passes on), inherited (gain * rel_l2_in), introduced_estimate (sqrt(max(0, rel_l2_out^2 - inherited^2)); an audit measures it), amplification (rel_l2_out / rel_l2_in); a relative error is infinite where the reference is 0 and the target is not; NULL where rows are undecided or disagree
-- empty: the two runs have no point of the residual stream in common
WITH stream AS (
  SELECT ordinal, layer, point,
         lag(layer) OVER before AS from_layer, lag(point) OVER before AS from_point,
         coalesce(evidence = 'statistics' OR lag(evidence) OVER before = 'statistics', evidence = 'statistics') AS undecided,
         coalesce(disagreeing, 0) + coalesce(lag(disagreeing) OVER before, 0) AS disagreeing,
         error_l2 * error_l2 AS error_out, reference_l2 * reference_l2 AS norm_out,
         power(lag(error_l2) OVER before, 2) AS error_in, power(lag(reference_l2) OVER before, 2) AS norm_in
  FROM compare($reference, $target)
  WHERE point IN ('embed', 'resid_mid', 'resid_post', 'final_norm', 'logits')
  WINDOW before AS (PARTITION BY position ORDER BY ordinal)
), merged AS (
  SELECT ordinal, layer, point, from_layer, from_point, count(*) AS rows,
         count(*) FILTER (WHERE undecided) AS undecided, sum(disagreeing) AS disagreeing,
         CASE WHEN bool_or(undecided) OR sum(disagreeing) > 0 THEN NULL ELSE sum(error_out) END AS error_out,
         sum(norm_out) AS norm_out, sum(error_in) AS error_in, sum(norm_in) AS norm_in
  FROM stream
  GROUP BY ordinal, layer, point, from_layer, from_point
), relative AS (
  SELECT ordinal, layer, point, from_layer, from_point, rows, undecided, disagreeing,
         -- x / 0 is infinite: what was nothing has an error without bounds
         CASE WHEN error_out IS NULL THEN NULL WHEN error_in = 0.0 THEN 0.0 ELSE sqrt(error_in / norm_in) END AS rel_l2_in,
         CASE WHEN error_out = 0.0 THEN 0.0 ELSE sqrt(error_out / norm_out) END AS rel_l2_out,
         -- A block passes a relative error on as it does the signal; the residual passes an absolute one on whole, which
         -- is more where the stream gets smaller.
         CASE WHEN from_point IS NULL OR error_out IS NULL THEN NULL WHEN point IN ('resid_mid', 'resid_post')
              THEN greatest(1.0, sqrt(norm_in / nullif(norm_out, 0.0))) ELSE 1.0 END AS gain
  FROM merged
), divided AS (
  -- nothing stands before the embedding: its error is its own
  SELECT *, CASE WHEN point = 'embed' THEN 0.0 ELSE gain * rel_l2_in END AS inherited FROM relative
)
SELECT ordinal, layer, point, from_layer, from_point, rows, undecided, disagreeing, rel_l2_in, rel_l2_out, gain, inherited,
       CASE WHEN rel_l2_out <= inherited THEN 0.0
            ELSE sqrt(rel_l2_out * rel_l2_out - inherited * inherited) END AS introduced_estimate,
       CASE WHEN rel_l2_in < CAST('Infinity' AS DOUBLE) THEN rel_l2_out / nullif(rel_l2_in, 0.0) END AS amplification
FROM divided
ORDER BY ordinal, from_point NULLS FIRST
