package peers.flink;

import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.core.execution.RecoveryClaimMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import peers.common.Arguments;

/** Runs one of {@link Jobs} under exactly-once in a MiniCluster of this process, until SIGTERM. */
public final class Main {
  public static void main(String[] args) throws Exception {
    Arguments arguments = new Arguments(args);
    String workload = arguments.get("workload");
    Jobs jobs =
        new Jobs(
            arguments.get("bootstrap"),
            arguments.get("input"),
            arguments.get("output"),
            arguments.get("id"),
            Duration.ofMillis(Long.parseLong(arguments.get("window_ms", "60000"))));
    int threads = arguments.getInt("threads");
    Configuration settings = settings(arguments, threads);
    // What is left of the command line comes last and wins.
    arguments.settings().forEach((name, value) -> settings.setString((String) name, (String) value));

    StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(threads, settings);
    jobs.define(workload, flink);
    JobClient job = flink.executeAsync(workload);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(job)));
    job.getJobExecutionResult().get();
  }

  /** The newest checkpoint stays, and a later start with {@code restore=latest} goes on from it. */
  private static void stop(JobClient job) {
    int code = 0;
    try {
      if (!job.getJobStatus().get(30, TimeUnit.SECONDS).isGloballyTerminalState()) {
        job.cancel().get(30, TimeUnit.SECONDS);
      } else {
        code = 1;
      }
    } catch (Exception failure) {
      failure.printStackTrace();
      code = 1;
    }
    Runtime.getRuntime().halt(code);
  }

  /** The reason for each is in ../README.md. */
  private static Configuration settings(Arguments arguments, int threads) throws Exception {
    Path state = Path.of(arguments.get("state_dir")).toAbsolutePath();
    Path checkpoints = state.resolve("checkpoints");
    Configuration settings = new Configuration();
    settings.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, CheckpointingMode.EXACTLY_ONCE);
    settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(arguments.getInt("commit_ms")));
    settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, checkpoints.toUri().toString());
    settings.set(CheckpointingOptions.FS_SMALL_FILE_THRESHOLD, MemorySize.parse("1mb"));
    settings.set(
        CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION,
        ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
    settings.set(StateBackendOptions.STATE_BACKEND, backend(arguments.get("variant", "hashmap")));
    settings.set(CheckpointingOptions.INCREMENTAL_CHECKPOINTS, true);
    settings.set(CoreOptions.TMP_DIRS, state.resolve("tmp").toString());

    settings.set(PipelineOptions.OBJECT_REUSE, true);
    settings.set(PipelineOptions.GENERIC_TYPES, false);
    settings.set(TaskManagerOptions.NUM_TASK_SLOTS, threads);
    settings.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.parse("512mb"));
    settings.set(TaskManagerOptions.NETWORK_MEMORY_MIN, MemorySize.parse("64mb"));
    settings.set(TaskManagerOptions.NETWORK_MEMORY_MAX, MemorySize.parse("64mb"));
    settings.set(RestartStrategyOptions.RESTART_STRATEGY, "disable");

    String restore = arguments.get("restore", "none");
    if (restore.equals("latest")) {
      // None: nothing was committed yet, and the job begins anew.
      Checkpoints.latest(checkpoints)
          .ifPresent(newest -> settings.set(StateRecoveryOptions.SAVEPOINT_PATH, newest.toUri().toString()));
      settings.set(StateRecoveryOptions.RESTORE_MODE, RecoveryClaimMode.CLAIM);
    } else if (!restore.equals("none")) {
      throw new IllegalArgumentException("restore is none or latest");
    }
    return settings;
  }

  private static String backend(String variant) {
    return switch (variant) {
      case "hashmap", "rocksdb" -> variant;
      default -> throw new IllegalArgumentException("variant is hashmap or rocksdb");
    };
  }
}
