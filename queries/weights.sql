-- question: Which weights of two models are equal, which differ and by how much, and which are on one side only?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: show all|unequal = all which weights
-- columns: layer, weight (canonical name), reference (stored type), target (stored type), state (byte_equal; equal: after dequantisation; different; different, values not kept; shapes differ; missing in, or not recorded in one of them), first (element that differs, row by row), max_abs_diff, rel_l2, slope (error of scale), max_over_step (largest difference over the step of its block; rounding stays near 0.5, search for scales near 1)
SELECT layer, weight, reference_dtype AS reference, target_dtype AS target, state, first_difference AS first,
       max_abs_diff, rel_l2, slope, max_over_step
FROM compare_weights($reference, $target)
WHERE $show = 'all' OR state NOT IN ('byte_equal', 'equal')
ORDER BY ordinal
