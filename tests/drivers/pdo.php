<?php
// PHP's PDO: prepared statements of the server (which it frees by DEALLOCATE), emulated ones, none at all; savepoints, copies,
// large results. One process, so that its connections take turns.

declare(strict_types=1);

const CLIENTS = 6;
const ROUNDS = 5;

function connect(array $options = []): PDO
{
    $source = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    $options += [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION];
    return new PDO($source, getenv('PGUSER'), getenv('PGPASSWORD'), $options);
}

function said(string $name): void
{
    echo "passed: $name\n";
}

function same(mixed $expected, mixed $found): void
{
    if ($expected !== $found) {
        throw new Exception('expected ' . var_export($expected, true) . ', found ' . var_export($found, true));
    }
}

/** The SQLSTATE that a call fails with. */
function failure(callable $call): string
{
    try {
        $call();
    } catch (PDOException $error) {
        return (string) $error->getCode();
    }
    throw new Exception('no error');
}

function value(PDO $client, string $sql, array $values = []): mixed
{
    $statement = $client->prepare($sql);
    $statement->execute($values);
    return $statement->fetchColumn();
}

function tables(PDO $client): void
{
    $client->exec('DROP TABLE IF EXISTS pdo_rows; CREATE TABLE pdo_rows (id serial PRIMARY KEY, owner text UNIQUE, n int)');
    said('tables');
}

function statements(PDO $client, string $name): void
{
    $statement = $client->prepare('INSERT INTO pdo_rows (owner, n) VALUES (?, ?) RETURNING id');
    for ($n = 0; $n < 50; $n++) {
        $statement->execute(["$name $n", $n]);
        same(true, $statement->fetchColumn() > 0);
    }
    // Each of these is prepared and freed.
    for ($n = 0; $n < 20; $n++) {
        same($n + 1, value($client, "SELECT CAST(:n AS int) + 1 + $n - $n", ['n' => $n]));
    }
    same('23505', failure(fn () => $statement->execute(["$name 1", 1])));
    same('42P01', failure(fn () => value($client, 'SELECT * FROM no_such_table WHERE id = ?', [1])));
    same(50, value($client, 'SELECT count(*)::int FROM pdo_rows WHERE owner LIKE ?', ["$name %"]));
    $client->exec('DELETE FROM pdo_rows');
    said($name);
}

function transactions(PDO $client): void
{
    $client->beginTransaction();
    $client->exec("INSERT INTO pdo_rows (owner) VALUES ('lost')");
    $client->rollBack();
    $client->beginTransaction();
    $client->exec("INSERT INTO pdo_rows (owner) VALUES ('kept')");
    $client->exec('SAVEPOINT one');
    same('23505', failure(fn () => value($client, 'INSERT INTO pdo_rows (owner) VALUES (?)', ['kept'])));
    $client->exec('ROLLBACK TO one');
    same(true, $client->inTransaction());
    $client->commit();
    same(['kept'], $client->query('SELECT owner FROM pdo_rows')->fetchAll(PDO::FETCH_COLUMN));
    $lines = array_map(fn (int $n) => "$n\tcopied $n\t$n\n", range(1000, 1999));
    same(true, $client->pgsqlCopyFromArray('pdo_rows', $lines));
    same(1001, count($client->pgsqlCopyToArray('pdo_rows')));
    // A cursor of the server.
    $client->beginTransaction();
    $cursor = $client->prepare('SELECT n FROM pdo_rows WHERE n IS NOT NULL', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $cursor->execute();
    same(1000, count($cursor->fetchAll()));
    $client->commit();
    said('transactions');
}

/** Applications set these when they connect, and never again. */
function manyClients(): void
{
    $clients = [];
    for ($number = 0; $number < CLIENTS; $number++) {
        $client = connect($number % 2 ? [PDO::ATTR_EMULATE_PREPARES => true] : []);
        $client->exec("SET NAMES 'UTF8'");
        $client->exec("SET search_path TO pg_catalog, public");
        $client->exec("SET TIME ZONE 'Asia/Tokyo'");
        $clients[] = [$client, $client->prepare('SELECT CAST(? AS int) * 2')];
    }
    $servers = [];
    for ($round = 0; $round < ROUNDS; $round++) {
        foreach ($clients as $number => [$client, $statement]) {
            $client->beginTransaction();
            value($client, "SELECT set_config('app.tenant', ?, true)", [$number]);
            $statement->execute([$number]);
            same($number * 2, $statement->fetchColumn());
            same((string) $number, value($client, "SELECT current_setting('app.tenant')"));
            $servers[] = value($client, 'SELECT pg_backend_pid()');
            $client->commit();
            same('Asia/Tokyo', value($client, "SELECT current_setting('timezone')"));
            same('pg_catalog, public', value($client, 'SHOW search_path'));
        }
    }
    same(true, count(array_unique($servers)) <= (int) (getenv('TEST_SERVERS_MAX') ?: CLIENTS));
    said('many clients');
}

$client = connect();
tables($client);
statements($client, 'prepared');
statements(connect([PDO::ATTR_EMULATE_PREPARES => true]), 'emulated');
statements(connect([PDO::PGSQL_ATTR_DISABLE_PREPARES => true]), 'not prepared');
transactions($client);
manyClients();
$client->exec('DROP TABLE pdo_rows');
echo "all passed\n";
