import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Timer;
import java.util.TimerTask;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.DeploymentOptions;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.config.ExecutionConfigOptions;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * Flink SQL over the topics of the Kafka benchmark: a cluster in this process that stays, and a job for each line of standard input.
 *
 * <p>Arguments: BOOTSTRAP REGISTRY PARALLELISM DEADLINE_SECONDS. It prints "ready", then takes the names of topics, one a line, and answers each with a line: the
 * sums that the benchmark has of its own table, with spaces between them. It ends with its input, or when a job takes longer than the deadline. `kafka/flink.rs`
 * of the benchmarks calls it.
 *
 * <p>A job reads a topic from its beginning to what was its end when it was submitted, in streaming mode. Every column is used, so every column is decoded. Rows
 * that are appended are not kept. Of the topic of changes, the last row of each key is: the source may repeat changes, so Flink normalizes them in its state.
 */
public final class FlinkPeer {
    private static final String ROW = "id BIGINT NOT NULL, customer INT NOT NULL, amount DOUBLE NOT NULL, `at` %s, note STRING";
    /** As `SUMS` of the benchmark; sums of INT are INT here. */
    private static final String SUMS =
            "SELECT count(*), sum(id), sum(CAST(customer AS BIGINT)), CAST(sum(amount * 4) AS BIGINT), sum(CAST(char_length(note) AS BIGINT)), count(`at`) FROM bench";

    private FlinkPeer() {}

    public static void main(String[] arguments) {
        int status = 0;
        try {
            serve(arguments);
        } catch (Exception error) {
            error.printStackTrace();
            status = 1;
        }
        // Threads of libraries may stay.
        Runtime.getRuntime().halt(status);
    }

    private static void serve(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        String registry = arguments[1];
        int parallelism = Integer.parseInt(arguments[2]);
        Duration deadline = Duration.ofSeconds(Long.parseLong(arguments[3]));
        try (MiniCluster cluster = cluster(parallelism)) {
            cluster.start();
            TableEnvironment tables = environment(cluster.getRestAddress().get(), parallelism);
            System.out.println("ready");
            BufferedReader topics = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String topic = topics.readLine(); topic != null; topic = topics.readLine()) {
                TimerTask guard = haltAfter(deadline);
                System.out.println(read(tables, create(topic, bootstrap, registry)));
                guard.cancel();
            }
        }
    }

    private static MiniCluster cluster(int parallelism) {
        Configuration configuration = new Configuration();
        configuration.set(RestOptions.ADDRESS, "127.0.0.1");
        configuration.set(RestOptions.BIND_ADDRESS, "127.0.0.1");
        configuration.set(RestOptions.BIND_PORT, "0");
        return new MiniCluster(
                new MiniClusterConfiguration.Builder()
                        .setConfiguration(configuration)
                        .setNumTaskManagers(1)
                        .setNumSlotsPerTaskManager(parallelism)
                        .build());
    }

    /** What speaks to the cluster, with the settings that Flink's documentation has for throughput. */
    private static TableEnvironment environment(URI rest, int parallelism) {
        Configuration configuration = new Configuration();
        configuration.set(DeploymentOptions.TARGET, "remote");
        configuration.set(RestOptions.ADDRESS, rest.getHost());
        configuration.set(RestOptions.PORT, rest.getPort());
        configuration.set(PipelineOptions.OBJECT_REUSE, true);
        configuration.set(ExecutionConfigOptions.TABLE_EXEC_RESOURCE_DEFAULT_PARALLELISM, parallelism);
        configuration.set(ExecutionConfigOptions.TABLE_EXEC_MINIBATCH_ENABLED, true);
        configuration.set(ExecutionConfigOptions.TABLE_EXEC_MINIBATCH_ALLOW_LATENCY, Duration.ofSeconds(1));
        configuration.set(ExecutionConfigOptions.TABLE_EXEC_MINIBATCH_SIZE, 20_000L);
        configuration.set(ExecutionConfigOptions.TABLE_EXEC_SOURCE_CDC_EVENTS_DUPLICATE, true);
        return TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
    }

    /** The table of a topic. */
    private static String create(String topic, String bootstrap, String registry) {
        String columns;
        String format;
        switch (topic) {
            case "json":
                columns = String.format(ROW, "TIMESTAMP(6)");
                format = "'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601'";
                break;
            case "avro":
                // The format has no timestamps of microseconds.
                columns = String.format(ROW, "BIGINT");
                format = "'format' = 'avro-confluent', 'avro-confluent.url' = '" + registry + "'";
                break;
            case "debezium":
                columns = String.format(ROW, "BIGINT") + ", PRIMARY KEY (id) NOT ENFORCED";
                format = "'format' = 'debezium-avro-confluent', 'debezium-avro-confluent.url' = '" + registry + "'";
                break;
            default:
                throw new IllegalArgumentException("no topic \"" + topic + "\"");
        }
        return "CREATE TEMPORARY TABLE bench (" + columns + ") WITH ('connector' = 'kafka', 'topic' = '" + topic
                + "', 'properties.bootstrap.servers' = '" + bootstrap
                + "', 'properties.isolation.level' = 'read_committed', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset', "
                + format + ")";
    }

    /** The last of the sums, each of which replaces the one before. */
    private static String read(TableEnvironment tables, String create) throws Exception {
        tables.executeSql(create);
        Row last = null;
        try (CloseableIterator<Row> sums = tables.executeSql(SUMS).collect()) {
            while (sums.hasNext()) {
                last = sums.next();
            }
        }
        tables.executeSql("DROP TEMPORARY TABLE bench");
        if (last == null) {
            throw new IllegalStateException("no sums");
        }
        StringBuilder line = new StringBuilder();
        for (int field = 0; field < last.getArity(); field++) {
            line.append(field == 0 ? "" : " ").append(last.getField(field));
        }
        return line.toString();
    }

    private static TimerTask haltAfter(Duration deadline) {
        TimerTask task =
                new TimerTask() {
                    @Override
                    public void run() {
                        System.err.println("no end of the job after " + deadline);
                        Runtime.getRuntime().halt(1);
                    }
                };
        new Timer(true).schedule(task, deadline.toMillis());
        return task;
    }
}
