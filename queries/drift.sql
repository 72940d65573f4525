-- question: How do two runs drift apart over prefill and decode steps, and where is the next token another?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- columns: step (of the target, 0 is the prefill), rows (on equal positions and tokens), undecided (of them: they differ, and a side kept no tensor), disagreeing (elements that are nonfinite on one side only, or in different ways), rel_l2 (largest of a row, of those that have one), logits_rel_l2 (of the step's last row), kl_divergence (of the step's last row), top1_equal (of the step's last row)
SELECT step, count(*) AS rows, count(*) FILTER (WHERE evidence = 'statistics') AS undecided,
       coalesce(sum(disagreeing), 0) AS disagreeing, max(rel_l2) AS rel_l2,
       max(CASE WHEN last_logits THEN rel_l2 END) AS logits_rel_l2,
       max(CASE WHEN last_logits THEN kl_divergence END) AS kl_divergence,
       bool_and(CASE WHEN last_logits THEN top1_equal END) AS top1_equal
FROM (
  SELECT target_step AS step, evidence, disagreeing, rel_l2, kl_divergence, top1_equal,
         point = 'logits' AND position = max(position) OVER (PARTITION BY target_step) AS last_logits
  FROM compare($reference, $target)
  WHERE point <> 'moe_topk'
)
GROUP BY step
ORDER BY step
