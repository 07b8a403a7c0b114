// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The migration state machine: requests, arcs and what each of them does
 */
#include <linux/hrtimer.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#include "dma.h"

static const char *const state_names[P2PSIM_STATES] = {
	[VFIO_DEVICE_STATE_ERROR] = "ERROR",
	[VFIO_DEVICE_STATE_STOP] = "STOP",
	[VFIO_DEVICE_STATE_RUNNING] = "RUNNING",
	[VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
	[VFIO_DEVICE_STATE_RESUMING] = "RESUMING",
	[VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
	[VFIO_DEVICE_STATE_PRE_COPY] = "PRE_COPY",
	[VFIO_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
};

#define TO(state) BIT(VFIO_DEVICE_STATE_##state)

/* States one step away, over all combinations of flags */
static const u32 arcs[P2PSIM_STATES] = {
	[VFIO_DEVICE_STATE_STOP] = TO(RUNNING_P2P) | TO(RUNNING) |
				   TO(STOP_COPY) | TO(RESUMING),
	[VFIO_DEVICE_STATE_RUNNING] = TO(RUNNING_P2P) | TO(STOP) |
				      TO(PRE_COPY),
	[VFIO_DEVICE_STATE_STOP_COPY] = TO(STOP),
	[VFIO_DEVICE_STATE_RESUMING] = TO(STOP),
	[VFIO_DEVICE_STATE_RUNNING_P2P] = TO(RUNNING) | TO(STOP) |
					  TO(PRE_COPY_P2P),
	[VFIO_DEVICE_STATE_PRE_COPY] = TO(RUNNING) | TO(PRE_COPY_P2P) |
				       TO(STOP_COPY),
	[VFIO_DEVICE_STATE_PRE_COPY_P2P] = TO(PRE_COPY) | TO(RUNNING_P2P) |
					   TO(STOP_COPY),
};

const char *p2psim_state_name(enum vfio_device_mig_state state)
{
	return state < P2PSIM_STATES ? state_names[state] : "INVALID";
}

int p2psim_state_parse(const char *name)
{
	return match_string(state_names, P2PSIM_STATES, name);
}

bool p2psim_is_arc(enum vfio_device_mig_state from,
		   enum vfio_device_mig_state to)
{
	return arcs[from] & BIT(to);
}

bool p2psim_is_saving(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY ||
	       state == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       state == VFIO_DEVICE_STATE_STOP_COPY;
}

/* To its peers */
bool p2psim_is_sending(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_RUNNING ||
	       state == VFIO_DEVICE_STATE_PRE_COPY;
}

/* What its peers send to it */
bool p2psim_is_answering(enum vfio_device_mig_state state)
{
	return p2psim_is_sending(state) ||
	       state == VFIO_DEVICE_STATE_RUNNING_P2P ||
	       state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/* splitmix64: one line, and easy to do again in another language */
static u64 next_pattern(u64 *seed)
{
	u64 z = *seed += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

void p2psim_state_init(struct p2psim_device *sim)
{
	mutex_init(&sim->state_lock);
	mutex_init(&sim->reset_lock);
	mutex_init(&sim->data_lock);
}

void p2psim_state_destroy(struct p2psim_device *sim)
{
	mutex_destroy(&sim->data_lock);
	mutex_destroy(&sim->reset_lock);
	mutex_destroy(&sim->state_lock);
}

void p2psim_state_lock(struct p2psim_device *sim)
{
	mutex_lock(&sim->state_lock);
}

static bool is_reset_due(struct p2psim_device *sim)
{
	bool due;

	mutex_lock(&sim->reset_lock);
	due = sim->reset_due;
	sim->reset_due = false;
	/* Who finds it locked has been seen, or will see it unlocked */
	if (!due)
		mutex_unlock(&sim->state_lock);
	mutex_unlock(&sim->reset_lock);
	return due;
}

/* All who take the state_lock give it back like this */
void p2psim_state_unlock(struct p2psim_device *sim)
{
	while (is_reset_due(sim))
		sim->reset_now(sim);
}

/* False: somebody else has the state_lock, and resets the device at the end */
bool p2psim_state_lock_or_defer_reset(struct p2psim_device *sim)
{
	bool locked;

	mutex_lock(&sim->reset_lock);
	locked = mutex_trylock(&sim->state_lock);
	if (!locked) {
		sim->reset_due = true;
		/* Before the reset itself is logged */
		p2psim_log(sim->log, "deferred");
	}
	mutex_unlock(&sim->reset_lock);
	return locked;
}

/* A device as nobody has used it before: RUNNING, memory from the seed */
void p2psim_refresh(struct p2psim_device *sim)
{
	u64 seed = sim->config.seed;
	__le64 word;
	u32 i;

	lockdep_assert_held(&sim->state_lock);
	lockdep_assert_held(&sim->data_lock);
	p2psim_session_end(sim);
	for (i = 0; i < sim->config.size_bytes; i += sizeof(word)) {
		word = cpu_to_le64(next_pattern(&seed));
		memcpy(sim->memory + i, &word,
		       min_t(u32, sizeof(word), sim->config.size_bytes - i));
	}
	sim->window = 0;
	p2psim_pci_reset(sim);
	sim->state = VFIO_DEVICE_STATE_RUNNING;
	p2psim_peer_fresh(sim);
	p2psim_dma_fresh(sim);
}

/*
 * Killable and no more: an arc that any signal could break off would be
 * taken, and logged, twice.
 */
static int sleep_us(u32 us)
{
	ktime_t end = ktime_add_us(ktime_get(), us);

	while (ktime_before(ktime_get(), end)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		set_current_state(TASK_KILLABLE);
		schedule_hrtimeout(&end, HRTIMER_MODE_ABS);
	}
	return 0;
}

static struct file *enter_state(struct p2psim_device *sim,
				enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state from = sim->state;
	struct file *filp = NULL;
	int ret = 0;

	guard(mutex)(&sim->data_lock);
	if (from == VFIO_DEVICE_STATE_RESUMING) {
		ret = p2psim_session_verify(sim);
		if (ret && sim->config.keep_on_bad_stream)
			return ERR_PTR(ret);
		p2psim_session_end(sim);
	} else if (to == VFIO_DEVICE_STATE_RESUMING) {
		filp = p2psim_session_start(sim, false);
	} else if (p2psim_is_saving(to) && !p2psim_is_saving(from)) {
		filp = p2psim_session_start(sim, true);
	} else if (p2psim_is_saving(from) && !p2psim_is_saving(to)) {
		p2psim_session_end(sim);
	}
	if (IS_ERR(filp))
		return filp;
	/* What was loaded is half of something: nothing but a reset helps */
	sim->state = ret ? VFIO_DEVICE_STATE_ERROR : to;
	p2psim_session_wake(sim);
	p2psim_peer_enter(sim);
	p2psim_dma_enter(sim);
	return ret ? ERR_PTR(ret) : filp;
}

/* As when the hardware is gone: what was being moved is lost */
static void break_down(struct p2psim_device *sim)
{
	guard(mutex)(&sim->data_lock);
	p2psim_session_end(sim);
	sim->state = VFIO_DEVICE_STATE_ERROR;
	p2psim_peer_enter(sim);
	p2psim_dma_enter(sim);
}

static int try_arc(struct p2psim_device *sim, enum vfio_device_mig_state to,
		   const struct p2psim_fault *fault)
{
	enum vfio_device_mig_state from = sim->state;
	u32 us = sim->config.latency_us[from][to];
	int ret;

	if (fault && fault->kind == P2PSIM_ARC_HANG)
		us += fault->value;
	ret = sleep_us(us);
	if (ret)
		return ret;
	if (fault && fault->kind == P2PSIM_ARC_ERROR)
		break_down(sim);
	if (fault && (fault->kind == P2PSIM_ARC_ERROR ||
		      fault->kind == P2PSIM_ARC_FAIL))
		return -(int)fault->value;
	if (p2psim_is_sending(from) && !p2psim_is_sending(to))
		return p2psim_peer_quiesce(sim);
	return 0;
}

static struct file *take_arc(struct p2psim_device *sim,
			     enum vfio_device_mig_state to)
{
	const struct p2psim_fault *fault = p2psim_fault_arc(sim, to);
	enum vfio_device_mig_state from = sim->state;
	u64 start = ktime_get_real_ns();
	struct file *filp;
	int ret;

	ret = try_arc(sim, to, fault);
	filp = ret ? ERR_PTR(ret) : enter_state(sim, to);
	/* The arc is over all the same, should somebody break this off */
	if (fault && fault->kind == P2PSIM_ARC_LATE)
		sleep_us(fault->value);
	p2psim_log(sim->log, "arc from=%s to=%s ret=%d start_ns=%llu end_ns=%llu",
		   p2psim_state_name(from), p2psim_state_name(to),
		   PTR_ERR_OR_ZERO(filp), start, ktime_get_real_ns());
	return filp;
}

static int next_state(struct p2psim_device *sim, enum vfio_device_mig_state to,
		      enum vfio_device_mig_state *next)
{
	enum vfio_device_mig_state from = sim->state;

	if (from == VFIO_DEVICE_STATE_ERROR)
		return -EINVAL;
	/*
	 * Kernels without "vfio: prevent infinite loop in
	 * vfio_mig_get_next_state() on blocked arc" never return from these.
	 */
	if (from == VFIO_DEVICE_STATE_STOP_COPY &&
	    (to == VFIO_DEVICE_STATE_PRE_COPY ||
	     to == VFIO_DEVICE_STATE_PRE_COPY_P2P))
		return -EINVAL;
	return vfio_mig_get_next_state(&sim->vdev, from, to, next);
}

static struct file *walk_to(struct p2psim_device *sim,
			    enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state next;
	struct file *filp = NULL;
	int ret;

	if (to == VFIO_DEVICE_STATE_ERROR)
		return ERR_PTR(-EINVAL);

	/* The states that return a file are never interior to a path */
	while (sim->state != to && !WARN_ON_ONCE(filp)) {
		ret = next_state(sim, to, &next);
		if (ret)
			return ERR_PTR(ret);
		filp = take_arc(sim, next);
		if (IS_ERR(filp))
			break;
	}
	return filp;
}

static struct file *p2psim_set_state(struct vfio_device *vdev,
				     enum vfio_device_mig_state to)
{
	struct p2psim_device *sim =
		container_of(vdev, struct p2psim_device, vdev);
	struct file *filp;

	guard(p2psim_state)(sim);
	p2psim_log(sim->log, "request from=%s to=%s",
		   p2psim_state_name(sim->state), p2psim_state_name(to));
	filp = walk_to(sim, to);
	p2psim_log(sim->log, "result to=%s state=%s ret=%d",
		   p2psim_state_name(to), p2psim_state_name(sim->state),
		   PTR_ERR_OR_ZERO(filp));
	return filp;
}

static int p2psim_get_state(struct vfio_device *vdev,
			    enum vfio_device_mig_state *state)
{
	struct p2psim_device *sim =
		container_of(vdev, struct p2psim_device, vdev);

	guard(p2psim_state)(sim);
	*state = sim->state;
	return 0;
}

static int p2psim_get_data_size(struct vfio_device *vdev,
				unsigned long *stop_copy_length)
{
	struct p2psim_device *sim =
		container_of(vdev, struct p2psim_device, vdev);

	guard(mutex)(&sim->data_lock);
	*stop_copy_length = p2psim_stop_copy_bytes(sim);
	return 0;
}

/* The SET of a feature without data; what there is of data is ignored */
int p2psim_set_info_v2(struct p2psim_device *sim, u32 flags, size_t argsz)
{
	int ret;

	if (!sim->config.precopy_info_v2)
		return -ENOTTY;
	if (!(sim->vdev.migration_flags & VFIO_MIGRATION_PRE_COPY))
		return -EINVAL;
	ret = vfio_check_feature(flags, argsz, VFIO_DEVICE_FEATURE_SET, 0);
	if (ret != 1)
		return ret;
	guard(mutex)(&sim->data_lock);
	sim->info_v2 = true;
	return 0;
}

const struct vfio_migration_ops p2psim_migration_ops = {
	.migration_set_state = p2psim_set_state,
	.migration_get_state = p2psim_get_state,
	.migration_get_data_size = p2psim_get_data_size,
};
