/*
 * scheduler-pass: make slurmctld run its scheduler once, as after a job's epilog, of a job that there is not.
 * Only a pass reads SchedulerParameters: until the first one, a batch job waits for the compiled-in batch_sched_delay
 * of 3 s, or for backfill, which begins a second after the start (slurm.conf(5)).
 */
#include "slurm/slurm.h"
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(25, 11, 0)
#error "slurmctld makes no pass for a job that it does not know, and logs an error"
#endif
#include "src/common/slurm_protocol_api.h"

int main(void)
{
	epilog_complete_msg_t epilog = { .node_name = "none" };
	slurm_msg_t message;

	slurm_init(NULL);
	slurm_msg_t_init(&message);
	slurm_msg_set_r_uid(&message, SLURM_AUTH_UID_ANY);
	message.msg_type = MESSAGE_EPILOG_COMPLETE;
	message.data = &epilog;
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(24, 5, 0)
	int answer = SLURM_ERROR;
	return slurm_send_recv_controller_rc_msg(&message, &answer, NULL) || answer;
#else
	return slurm_send_only_controller_msg(&message, NULL);
#endif
}
