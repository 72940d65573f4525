-- question: What does the difference of two runs mean for the answer, token by token?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: limit integer = 100 rows to show
-- columns: position, token_id (that was read), top1_equal (the same greedy choice), rank (of the reference's choice in the target, 0 first), reference_gap (between the reference's two largest logits), target_gap, kl_divergence (target from reference, in nats), top10_overlap, rel_l2, evidence (fingerprint: equal in every bit; tensor; statistics: different, and a side kept no tensor, so that there are no figures)
-- empty: the two runs have no logits in common on equal positions and tokens
SELECT position, token_id, top1_equal, rank, reference_gap, target_gap, kl_divergence, top10_overlap, rel_l2,
       evidence
FROM compare($reference, $target)
WHERE point = 'logits'
ORDER BY position
LIMIT $limit
