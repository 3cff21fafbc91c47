SET LOCAL statement_timeout = 0;
SET LOCAL statement_timeout = '4s';
SET LOCAL search_path = pg_catalog;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL quote_all_identifiers = off;
SET LOCAL jit = off;
WITH RECURSIVE pattern AS (
  SELECT $$\m(set_config|ts_stat|ts_rewrite|pg_(try_)?advisory_lock\w*)\M$$ AS leaves,
    $$\m(setseed|dblink\w*|set_limit|query_to_xml\w*|pg_(backup_start|backup_stop|start_backup|stop_backup|replication_origin_\w+|(create|copy)_(logical|physical)_replication_slot))\M|set_config"?\s*\(\s*'+seed'|(^|[;'$]|\*/|--[^\n]*\n|\m(begin|then|else|loop)\M)\s*set\s+((session|local)\s+)?"?seed\M$$
      AS leaves_unseen,
    $$\mset_config"?\s*\(\s*([^\s']|'[^']*'\s*[^,:[:space:]])$$ AS sets_unseen,
    $p$(?:set_config"?\s*\(\s*'|\mset\s+(?:session\s+)?)([a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)+)$p$ AS sets,
    $$\m(currval|lastval)\M$$ AS reads
), routine AS MATERIALIZED (
  SELECT p.oid, lower(p.proname) AS name, CASE WHEN a.aggfnoid IS NULL THEN l.lanname ELSE 'sql' END AS language,
    lower(CASE WHEN a.aggfnoid IS NULL THEN coalesce(pg_get_function_sqlbody(p.oid), p.prosrc, '')
      ELSE concat_ws('() ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn, '')
      END || coalesce(' ' || pg_get_expr(p.proargdefaults, 0), '')
      || CASE WHEN array_to_string(p.proconfig, ' ') ~* '(^| )seed=' THEN ' setseed' ELSE '' END) AS source
  FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang
  JOIN pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
), size AS (
  SELECT coalesce(sum(length(source)), 0) <= 1000000 AS is_small FROM routine
), rule AS MATERIALIZED (
  SELECT r.oid FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relpersistence <> 't'
), expression AS MATERIALIZED (
  SELECT lower(source) AS source, is_read FROM (
    SELECT pg_get_ruledef(oid) AS source, true AS is_read FROM rule
    UNION ALL SELECT coalesce(pg_get_expr(polqual, polrelid), '') || coalesce(pg_get_expr(polwithcheck, polrelid), ''),
      true FROM pg_policy
    UNION ALL SELECT oprcode::text, true FROM pg_operator WHERE oid >= 16384
    UNION ALL SELECT castfunc::regproc::text, true FROM pg_cast WHERE oid >= 16384
    UNION ALL SELECT pg_get_constraintdef(oid), contypid <> 0 FROM pg_constraint WHERE contype = 'c'
    UNION ALL SELECT pg_get_expr(adbin, adrelid), false FROM pg_attrdef
    UNION ALL SELECT pg_get_expr(typdefaultbin, 0), false FROM pg_type WHERE typdefaultbin IS NOT NULL
    UNION ALL SELECT pg_get_triggerdef(oid), false FROM pg_trigger WHERE tgqual IS NOT NULL OR tgnargs > 0
    UNION ALL SELECT array_to_string(pg_get_statisticsobjdef_expressions(oid), ' '), false FROM pg_statistic_ext
      WHERE stxexprs IS NOT NULL
  ) AS any_place
), called AS MATERIALIZED (
  SELECT is_read, source ~ leaves OR source ~ leaves_unseen AS is_hidden,
    source ~ sets_unseen OR source ~ leaves_unseen AS is_opaque, source ~ reads AS reads_sequences
  FROM expression, pattern
), foreign_code AS MATERIALIZED (
  SELECT r.oid FROM routine r
  WHERE CASE
    WHEN r.language IN ('sql', 'plpgsql') THEN false
    WHEN r.language IN ('c', 'internal') THEN
      r.name ~ '^(dblink|set_limit)' AND r.source <> 'dblink_fdw_validator'
      OR NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = r.oid
        AND d.deptype = 'e')
    ELSE true
  END
), found AS (
  SELECT r.oid, r.name FROM routine r, pattern
  WHERE r.oid IN (SELECT oid FROM foreign_code)
  OR r.language = 'c' AND r.source ~ '^(crosstab|connectby_text|xpath_table)'
  OR r.language IN ('sql', 'plpgsql') AND (r.source ~ leaves OR r.source ~ leaves_unseen
    OR r.source ~ $$\m(listen|unlisten|load|discard|prepare|deallocate|temp|temporary|pg_temp|execute|role|authorization|pg_advisory_unlock\w*|with\s+hold)\M$$
    OR r.source ~ $$(^|;|\*/|--[^\n]*\n|\m(begin|then|else|loop)\M)\s*(re)?set\s$$
    OR strpos(r.source, 'u&"') > 0)
  UNION SELECT r.oid, r.name FROM found f JOIN routine r ON (SELECT is_small FROM size)
    AND (r.language NOT IN ('c', 'internal') AND strpos(r.source, f.name) > 0
      OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid))
), suspect AS MATERIALIZED (SELECT * FROM found LIMIT 201)
SELECT (SELECT NOT is_small FROM size) AND EXISTS (SELECT FROM suspect)
OR EXISTS (SELECT FROM pg_depend d JOIN suspect s ON d.refobjid = s.oid
  WHERE d.refclassid = 'pg_proc'::regclass AND d.classid <> 'pg_proc'::regclass)
OR EXISTS (SELECT FROM called WHERE is_hidden),
EXISTS (SELECT FROM foreign_code)
OR EXISTS (SELECT FROM routine r, pattern WHERE r.language IN ('sql', 'plpgsql')
  AND (r.source ~ leaves_unseen OR r.source ~ sets_unseen OR r.source ~ $$\mdeallocate\M|\mload\s+'|'\s*load\s$$
    OR r.source ~ $$\mexecute\M$$ AND r.source ~ E'[''$]\\s*(re)?set\\s'))
OR EXISTS (SELECT FROM called WHERE is_opaque),
(SELECT coalesce(string_agg(DISTINCT m[1], ','), '')
  FROM (SELECT source FROM routine UNION ALL SELECT source FROM expression) AS any_source, pattern,
    LATERAL regexp_matches(source, sets, 'g') AS m),
EXISTS (SELECT FROM routine, pattern WHERE source ~ reads)
OR EXISTS (SELECT FROM called WHERE reads_sequences),
(SELECT coalesce(string_agg(DISTINCT name, ','), '') FROM suspect),
(SELECT NOT is_small FROM size) AND EXISTS (SELECT FROM suspect)
OR EXISTS (SELECT FROM pg_depend d JOIN suspect s ON d.refobjid = s.oid
  WHERE d.refclassid = 'pg_proc'::regclass
  AND d.classid NOT IN ('pg_proc'::regclass, 'pg_trigger'::regclass, 'pg_event_trigger'::regclass, 'pg_attrdef'::regclass))
OR EXISTS (SELECT FROM called WHERE is_read AND is_hidden)
