// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The port of a VF, and what its function can do
 */
#include <linux/err.h>
#include <linux/pci.h>

#include "card.h"

static struct labpf_vf *to_vf(struct devlink_port *port)
{
	return container_of(port, struct labpf_vf, port);
}

/*
 * A driver that binds now has its name here before it asks
 * labpf_migratable(), which waits for the devl_lock.
 */
static int set_capability(struct devlink_port *port, bool *capability,
			  bool enable, struct netlink_ext_ack *extack)
{
	struct labpf_vf *vf = to_vf(port);

	devl_assert_locked(port->devlink);
	if (*capability == enable)
		return 0;
	if (READ_ONCE(vf->pdev->dev.driver)) {
		NL_SET_ERR_MSG_MOD(extack, "VF is bound to a driver");
		return -EBUSY;
	}
	*capability = enable;
	return 0;
}

static int migratable_get(struct devlink_port *port, bool *is_enable,
			  struct netlink_ext_ack *extack)
{
	*is_enable = to_vf(port)->migratable;
	return 0;
}

static int migratable_set(struct devlink_port *port, bool enable,
			  struct netlink_ext_ack *extack)
{
	return set_capability(port, &to_vf(port)->migratable, enable, extack);
}

static int roce_get(struct devlink_port *port, bool *is_enable,
		    struct netlink_ext_ack *extack)
{
	*is_enable = to_vf(port)->roce;
	return 0;
}

static int roce_set(struct devlink_port *port, bool enable,
		    struct netlink_ext_ack *extack)
{
	return set_capability(port, &to_vf(port)->roce, enable, extack);
}

static const struct devlink_port_ops port_ops = {
	.port_fn_migratable_get = migratable_get,
	.port_fn_migratable_set = migratable_set,
	.port_fn_roce_get = roce_get,
	.port_fn_roce_set = roce_set,
};

int labpf_port_add(struct labpf_card *card, u16 id)
{
	struct labpf_vf *vf = card->vfs + id;
	struct net_device *representor;
	int ret;

	memset(&vf->port, 0, sizeof(vf->port));
	devlink_port_attrs_pci_vf_set(&vf->port, 0, PCI_FUNC(card->pdev->devfn),
				      id, false);
	/* 0 is for the PF, as with mlx5 */
	ret = devl_port_register_with_ops(priv_to_devlink(card), &vf->port,
					  id + 1, &port_ops);
	if (ret)
		return ret;
	representor = labpf_representor_add(&card->pdev->dev, &vf->port);
	if (IS_ERR(representor)) {
		devl_port_unregister(&vf->port);
		return PTR_ERR(representor);
	}
	vf->representor = representor;
	return 0;
}

/* Does nothing to a VF without a port */
void labpf_port_remove(struct labpf_vf *vf)
{
	if (!vf->representor)
		return;
	labpf_representor_remove(vf->representor);
	vf->representor = NULL;
	devl_port_unregister(&vf->port);
}
