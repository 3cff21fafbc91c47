// PostgreSQL's JDBC driver against any server, run from source: java -cp postgresql.jar Jdbc.java

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

public class Jdbc {
    static final int CLIENTS = 20;
    static final int ROUNDS = 10;
    static final int BIG = 5 * 1024 * 1024;

    interface Scenario {
        void run(Connection connection) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        with("extended", connection -> {
            execute(connection, "DROP TABLE IF EXISTS jdbc_rows");
            execute(connection, "CREATE TABLE jdbc_rows (id int PRIMARY KEY, body text)");
        });
        for (String mode : List.of("extended", "extendedForPrepared", "extendedCacheEverything", "simple")) {
            with(mode, connection -> execute(connection, "TRUNCATE jdbc_rows"));
            with(mode, Jdbc::queries);
            with(mode, Jdbc::preparedStatements);
            with(mode, Jdbc::transactions);
            with(mode, Jdbc::failures);
            with(mode, Jdbc::batches);
            with(mode, Jdbc::copies);
            with(mode, Jdbc::cancels);
            said("mode " + mode);
        }
        with("extended", Jdbc::bigValues);
        with("extended", Jdbc::largeObjects);
        manyClients();
        System.out.println("all passed");
    }

    static void queries(Connection connection) throws Exception {
        check(value(connection, "SELECT 1").equals("1"), "a plain query");
        try (PreparedStatement statement = connection.prepareStatement(
                "SELECT ?::int + n FROM generate_series(1, 3) n")) {
            statement.setInt(1, 40);
            ResultSet rows = statement.executeQuery();
            int sum = 0;
            while (rows.next()) sum += rows.getInt(1);
            check(sum == 126, "three rows");
        }
        try (Statement statement = connection.createStatement()) {
            check(statement.execute("SELECT 1; SELECT 2") && statement.getMoreResults(), "two results");
        }
        connection.getMetaData().getTables(null, "public", "%", null).close();
    }

    static void preparedStatements(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("SELECT ?::int * 2")) {
            // The driver names a statement that it runs for the fifth time.
            for (int number = 0; number < 12; number++) {
                statement.setInt(1, number);
                ResultSet rows = statement.executeQuery();
                check(rows.next() && rows.getInt(1) == number * 2, "a prepared statement");
                connection.commit();
            }
        }
        for (int number = 0; number < 300; number++) {
            // More texts than its cache holds, so that it closes some.
            check(value(connection, "SELECT 1 + " + number).equals("" + (1 + number)), "many texts");
            connection.commit();
        }
    }

    static void transactions(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        execute(connection, "INSERT INTO jdbc_rows VALUES (1, 'kept')");
        Savepoint savepoint = connection.setSavepoint();
        execute(connection, "INSERT INTO jdbc_rows VALUES (2, 'lost')");
        connection.rollback(savepoint);
        connection.commit();
        execute(connection, "INSERT INTO jdbc_rows VALUES (3, 'lost')");
        connection.rollback();
        check(value(connection, "SELECT string_agg(id::text, ',') FROM jdbc_rows").equals("1"), "one row");
        connection.commit();
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(10);
            ResultSet rows = statement.executeQuery("SELECT n FROM generate_series(1, 100) n");
            int sum = 0;
            while (rows.next()) sum += rows.getInt(1);
            check(sum == 5050, "a portal read in pieces");
        }
        connection.commit();
    }

    static void failures(Connection connection) throws Exception {
        for (int round = 0; round < 3; round++) {
            fails(connection, "SELECT * FROM missing_table", "42P01");
            fails(connection, "SELECT 1 / 0", "22012");
            check(value(connection, "SELECT 5").equals("5"), "recovery");
            connection.setAutoCommit(false);
            fails(connection, "SELECT 1 / 0", "22012");
            fails(connection, "SELECT 1", "25P02");
            connection.rollback();
            connection.setAutoCommit(true);
        }
    }

    static void batches(Connection connection) throws Exception {
        String insert = "INSERT INTO jdbc_rows VALUES (?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(insert)) {
            for (int number = 1000; number < 1500; number++) add(statement, number);
            check(statement.executeBatch().length == 500, "a batch");
            connection.setAutoCommit(false);
            for (int number : new int[] {2000, 1000, 2001}) add(statement, number);
            try {
                statement.executeBatch();
                check(false, "a batch that fails");
            } catch (BatchUpdateException error) {
                check(error.getSQLState().equals("23505"), error.getSQLState());
            }
        }
        connection.rollback();
        connection.setAutoCommit(true);
        check(value(connection, "SELECT count(*) FROM jdbc_rows WHERE id >= 1000").equals("500"), "all or none");
    }

    static void add(PreparedStatement statement, int number) throws SQLException {
        statement.setInt(1, number);
        statement.setString(2, "many " + number);
        statement.addBatch();
    }

    static void copies(Connection connection) throws Exception {
        StringBuilder lines = new StringBuilder();
        for (int number = 20000; number < 30000; number++) lines.append(number).append("\tcopied\n");
        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        check(copy.copyIn("COPY jdbc_rows FROM STDIN", new StringReader(lines.toString())) == 10000, "COPY in");
        StringWriter out = new StringWriter();
        long rows = copy.copyOut("COPY (SELECT id FROM jdbc_rows WHERE id >= 20000) TO STDOUT", out);
        check(rows == 10000, "COPY out");
        try {
            copy.copyIn("COPY jdbc_rows FROM STDIN", new StringReader("no number\tx\n"));
            check(false, "a COPY that fails");
        } catch (SQLException error) {
            check(error.getSQLState().equals("22P02"), error.getSQLState());
        }
        check(value(connection, "SELECT 1").equals("1"), "recovery after COPY");
    }

    static void cancels(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    statement.cancel();
                } catch (Exception error) {
                    throw new IllegalStateException(error);
                }
            });
            canceller.start();
            try {
                statement.execute("SELECT pg_sleep(30)");
                check(false, "a cancelled query");
            } catch (SQLException error) {
                check(error.getSQLState().equals("57014"), error.getSQLState());
            }
            canceller.join();
        }
        check(value(connection, "SELECT 1").equals("1"), "recovery after a cancel");
    }

    static void bigValues(Connection connection) throws Exception {
        String text = "abcdefghijklmnopqrstuvwxyz0123456789_".repeat(BIG / 37);
        try (PreparedStatement statement = connection.prepareStatement("SELECT ?::text")) {
            statement.setString(1, text);
            ResultSet rows = statement.executeQuery();
            check(rows.next() && rows.getString(1).equals(text), "a big value");
        }
        said("big values");
    }

    // The driver reads and writes these by FunctionCall.
    static void largeObjects(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        LargeObjectManager manager = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO();
        LargeObject object = manager.open(oid);
        byte[] bytes = new byte[100_000];
        bytes[99_999] = 7;
        object.write(bytes);
        object.close();
        connection.commit();
        object = manager.open(oid, LargeObjectManager.READ);
        byte[] back = object.read(200_000);
        check(back.length == 100_000 && back[99_999] == 7, "a large object");
        object.close();
        manager.delete(oid);
        connection.commit();
        said("large objects");
    }

    static void manyClients() throws Exception {
        Set<String> servers = ConcurrentHashMap.newKeySet();
        List<Callable<Void>> clients = new ArrayList<>();
        for (int client = 0; client < CLIENTS; client++) {
            clients.add(() -> {
                with("extended", connection -> {
                    connection.setAutoCommit(false);
                    for (int round = 0; round < ROUNDS; round++) {
                        String server = value(connection, "SELECT pg_backend_pid()");
                        servers.add(server);
                        check(value(connection, "SELECT pg_backend_pid()").equals(server), "one server");
                        connection.commit();
                    }
                });
                return null;
            });
        }
        var executor = Executors.newFixedThreadPool(CLIENTS);
        for (Future<Void> client : executor.invokeAll(clients)) client.get();
        executor.shutdown();
        String most = System.getenv("TEST_SERVERS_MAX");
        check(most == null || servers.size() <= Integer.parseInt(most), servers.size() + " servers");
        said("many clients");
    }

    static void with(String mode, Scenario scenario) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("preferQueryMode", mode);
        properties.setProperty("sslmode", System.getenv("PGSSLMODE"));
        String authority = System.getenv("PGSSLROOTCERT");
        if (authority != null) properties.setProperty("sslrootcert", authority);
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE");
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            scenario.run(connection);
        }
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static String value(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            ResultSet rows = statement.executeQuery(sql);
            check(rows.next(), sql);
            return rows.getString(1);
        }
    }

    static void fails(Connection connection, String sql, String sqlState) throws SQLException {
        try {
            execute(connection, sql);
        } catch (SQLException error) {
            check(error.getSQLState().equals(sqlState), sql + ": " + error.getSQLState());
            return;
        }
        check(false, sql + " succeeded");
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new IllegalStateException(what);
    }

    static void said(String name) {
        System.out.println("passed: " + name);
    }
}
