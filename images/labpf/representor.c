// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The switch's end of a VF: a network device that drops what it is given
 *
 * Tools expect one with each port; and devlink takes a port that stays
 * without for a mistake, which it reports after an hour.
 */
#include <linux/err.h>
#include <linux/etherdevice.h>
#include <linux/netdevice.h>
#include <net/devlink.h>

#include "card.h"

static netdev_tx_t representor_xmit(struct sk_buff *skb,
				    struct net_device *netdev)
{
	dev_kfree_skb(skb);
	netdev->stats.tx_dropped++;
	return NETDEV_TX_OK;
}

static const struct net_device_ops representor_ops = {
	.ndo_start_xmit = representor_xmit,
};

struct net_device *labpf_representor_add(struct device *parent,
					 struct devlink_port *port)
{
	struct net_device *netdev = alloc_etherdev(0);
	int ret;

	if (!netdev)
		return ERR_PTR(-ENOMEM);
	netdev->netdev_ops = &representor_ops;
	eth_hw_addr_random(netdev);
	netif_carrier_off(netdev);
	SET_NETDEV_DEV(netdev, parent);
	SET_NETDEV_DEVLINK_PORT(netdev, port);
	ret = register_netdev(netdev);
	if (ret) {
		free_netdev(netdev);
		return ERR_PTR(ret);
	}
	return netdev;
}

void labpf_representor_remove(struct net_device *netdev)
{
	unregister_netdev(netdev);
	free_netdev(netdev);
}
