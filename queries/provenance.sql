-- question: What differs between the identities of two runs?
-- parameter: reference run = first the first run
-- parameter: target run = second the second run
-- columns: field, reference, target
WITH pairs AS (
  SELECT unnest(['kind', 'model', 'model_hash', 'architecture', 'format', 'weight_type', 'device', 'device_name', 'driver',
                 'cuda', 'kernel_path', 'semantics', 'compute_type', 'kv_type', 'attention', 'engine', 'engine_version',
                 'tool_version', 'host', 'cpu', 'instruction_set', 'threads', 'generate', 'tokenizer_hash',
                 'vocabulary_hash', 'prompt', 'tokens', 'argv', 'model_files', 'hyper_parameters', 'fused', 'selection',
                 'extra', 'status', 'content_root']) AS field,
         unnest([r.kind, r.model, r.model_hash, r.architecture, r.format, r.weight_type, r.device, r.device_name, r.driver,
                 r.cuda, r.kernel_path, r.semantics, r.compute_type, r.kv_type, r.attention, r.engine, r.engine_version,
                 r.tool_version, r.host, r.cpu, r.instruction_set, CAST(r.threads AS VARCHAR), CAST(r.generate AS VARCHAR),
                 r.tokenizer_hash, r.vocabulary_hash, r.prompt, array_to_string(r.tokens, ','), array_to_string(r.argv, ' '),
                 array_to_string(r.model_files, ', '), array_to_string(r.hyper_parameters, ', '),
                 array_to_string(r.fused, ', '), array_to_string(r.selection, ', '), array_to_string(r.extra, ', '),
                 r.status, r.content_root]) AS reference,
         unnest([t.kind, t.model, t.model_hash, t.architecture, t.format, t.weight_type, t.device, t.device_name, t.driver,
                 t.cuda, t.kernel_path, t.semantics, t.compute_type, t.kv_type, t.attention, t.engine, t.engine_version,
                 t.tool_version, t.host, t.cpu, t.instruction_set, CAST(t.threads AS VARCHAR), CAST(t.generate AS VARCHAR),
                 t.tokenizer_hash, t.vocabulary_hash, t.prompt, array_to_string(t.tokens, ','), array_to_string(t.argv, ' '),
                 array_to_string(t.model_files, ', '), array_to_string(t.hyper_parameters, ', '),
                 array_to_string(t.fused, ', '), array_to_string(t.selection, ', '), array_to_string(t.extra, ', '),
                 t.status, t.content_root]) AS target
  FROM runs r CROSS JOIN runs t
  WHERE r.run = $reference AND t.run = $target
)
SELECT field, reference, target FROM pairs WHERE reference IS DISTINCT FROM target
